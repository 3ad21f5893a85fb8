"""Adapters and prompts from the arguments, and captions from the data, through the trainer."""

from __future__ import annotations

import pytest
import torch
from tiny_data import CLASSES
from tiny_runs import first_batch, furthest, make_trainer, weights

from hf_hierrobust.adapters.lora import adapters_off, has_adapters
from hf_hierrobust.hierarchy import Forest
from hf_hierrobust.training import RobustTrainingArguments

pytest.importorskip("peft", reason="needs the extra peft")


def test_lora_by_arguments_trains_adapters_of_the_objectives_towers(tiny_clip_dir, tmp_path):
    trainer = make_trainer(tiny_clip_dir, tmp_path, objective="agft", lora_r=2)
    assert has_adapters(trainer.model) and trainer.step.views.reference.shared
    assert 0 < trainer.trained["vision"] < sum(p.numel() for p in trainer.model.vision_model.parameters()) / 4
    pixels, _ = first_batch(trainer)
    values = trainer.step.views.pipeline(pixels)
    with torch.no_grad():
        before = trainer.model.encode_image(values)
    trainer.train()
    trainer.model.eval()
    with torch.no_grad():
        after = trainer.model.encode_image(values)
        with adapters_off(trainer.model):
            original = trainer.model.encode_image(values)
    torch.testing.assert_close(original, before)
    assert not torch.allclose(after, before, atol=1e-4)


def test_a_tower_that_the_objective_leaves_alone_is_refused(tiny_clip_dir, tmp_path):
    with pytest.raises(ValueError, match=r"towers \['text'\] must be among.*\['vision'\]"):
        make_trainer(tiny_clip_dir, tmp_path, objective="tecoa", lora_r=2, lora_towers="text")


@pytest.mark.parametrize("options", [{"lora_alpha": 4.0}, {"lora_dropout": 0.1}, {"lora_towers": "vision"}])
def test_lora_options_without_a_rank_are_refused(options, tmp_path):
    with pytest.raises(ValueError, match="need lora_r, the adapters' rank"):
        RobustTrainingArguments(output_dir=str(tmp_path), **options)


def test_visual_prompts_by_arguments_train_nothing_else(tiny_clip_dir, tmp_path):
    trainer = make_trainer(tiny_clip_dir, tmp_path, visual_prompt_tokens=3, visual_prompt_border=2)
    assert list(trainer.trained) == ["visual_prompt"]
    before = weights(trainer.model)
    trainer.train()
    after = weights(trainer.model)
    prompt = {key for key in before if key.startswith("visual_prompt.")}
    rest = before.keys() - prompt
    assert prompt and furthest({k: before[k] for k in prompt}, {k: after[k] for k in prompt}) > 0
    assert furthest({k: before[k] for k in rest}, {k: after[k] for k in rest}) == 0


@pytest.mark.parametrize("name", ["mmcoa", "advflyp", "hier_mmcoa"])
def test_pairs_need_others_to_contrast_with(name, tiny_clip_dir, tiny_tree, tmp_path):
    words = f"per_device_train_batch_size=1: '{name}' contrasts the pairs of a batch"
    options = {"objective": name, "tree": Forest((tiny_tree,)), "per_device_train_batch_size": 1}
    with pytest.raises(ValueError, match=words):
        make_trainer(tiny_clip_dir, tmp_path, **options)


def test_captions_default_to_the_class_prompts(tiny_clip_dir, tmp_path):
    trainer = make_trainer(tiny_clip_dir, tmp_path, objective="advflyp")
    pixels, labels = first_batch(trainer)
    batch = trainer.reader.read({"pixels": pixels, "labels": labels}, trainer._starts)
    assert batch.captions == tuple(f"This is a photo of a {CLASSES[label]}." for label in labels)
    own = [f"caption {i}" for i in range(len(labels))]
    inputs = {"pixels": pixels, "labels": labels, "captions": own}
    assert trainer.reader.read(inputs, trainer._starts).captions == tuple(own)
