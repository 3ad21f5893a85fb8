"""Runs with adapters or a visual prompt: what moves, checkpoints, and resuming as if never killed."""

from __future__ import annotations

import shutil

import pytest
import torch
from tiny_data import CLASSES, make_images, make_tiny_clip
from tiny_runs import DEFAULTS, furthest, weights
from transformers import AutoProcessor, CLIPModel, TrainerCallback

from hf_hierrobust.adapters import add_lora, add_visual_prompt, lora_config
from hf_hierrobust.adapters.trainable import FrozenWeightsError, efficient_parts, set_trainable
from hf_hierrobust.data import ClassSet, PixelDataset
from hf_hierrobust.hierarchy import Forest
from hf_hierrobust.modeling import ReferenceModel, RobustCLIPModel
from hf_hierrobust.modeling.reference import ReferenceChangedError
from hf_hierrobust.modeling.side_files import ForeignCheckpointError
from hf_hierrobust.training import (
    RobustCLIPTrainer,
    RobustTrainingArguments,
    last_good_checkpoint,
    remove_earlier_run,
)
from hf_hierrobust.training.callbacks import InvariantsCallback

pytest.importorskip("peft")

HIER = ("vision", "text_projection", "hier_head")
OPTIONS = {
    "objective": "hier_robust",
    "max_steps": 3,
    "save_strategy": "steps",
    "save_steps": 1,
    "optim": "adamw_torch",
    "learning_rate": 1e-3,
    "lr_scheduler_type": "cosine",
}


def lora_run(clip_dir, folder, tree, kind="lora", callbacks=(), **options) -> RobustCLIPTrainer:
    model = RobustCLIPModel.from_pretrained(clip_dir)
    groups = HIER if options.get("objective") != "tecoa" else HIER[:1]
    if "lora" in kind:
        add_lora(model, lora_config(groups, r=2, dropout=0.1), seed=1)
    if "prompt" in kind:
        add_visual_prompt(model, tokens=2, border=2, seed=1)
    set_trainable(model, groups)
    trainer = RobustCLIPTrainer(
        model,
        RobustTrainingArguments(output_dir=str(folder), **{**DEFAULTS, **OPTIONS, **options}),
        processing_class=AutoProcessor.from_pretrained(clip_dir),
        class_set=ClassSet.from_names(CLASSES),
        tree=Forest((tree,)),
        train_dataset=PixelDataset(make_images(32)),
        callbacks=list(callbacks),
    )
    # The trainer's own watches a reference only where the objective needs one.
    trainer.remove_callback(InvariantsCallback)
    trainer.add_callback(InvariantsCallback(ReferenceModel(model)))
    return trainer


@pytest.fixture(scope="module", params=["lora", "prompt"])
def uninterrupted(request, tiny_clip_dir, tiny_tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    trainer = lora_run(tiny_clip_dir, folder, tiny_tree, request.param)
    before = weights(trainer.model)
    trainer.train()
    return trainer, folder, request.param, before


def test_only_the_small_parts_move(uninterrupted):
    trainer, _, kind, before = uninterrupted
    after = weights(trainer.model)
    moved = {name for name in after if furthest({0: before[name]}, {0: after[name]}) > 0}
    assert moved >= {name for part in efficient_parts(trainer.model).values() for name in part}
    projection = (
        "text_projection.modules_to_save.default.weight" if "lora" in kind else "text_projection.weight"
    )
    for name in moved - {projection}:
        assert "lora_" in name or name.startswith(("visual_prompt.", "hier_head.")), name
    assert projection in moved


def test_a_resumed_run_equals_the_uninterrupted_one(uninterrupted, tiny_clip_dir, tiny_tree, tmp_path):
    """Bit by bit, adapter on base weights; never the merged weights under the adapter."""
    straight, folder, kind, _ = uninterrupted
    torch.manual_seed(999)
    resumed = lora_run(tiny_clip_dir, tmp_path, tiny_tree, kind)
    resumed.train(resume_from_checkpoint=str(folder / "checkpoint-1"))
    assert resumed.state.global_step == 3
    assert furthest(weights(straight.model), weights(resumed.model)) == 0
    logs = [[entry for entry in t.state.log_history if "loss" in entry] for t in (straight, resumed)]
    assert logs[0] == logs[1]


def test_checkpoints_are_whole_only_with_all_their_files(uninterrupted, tmp_path):
    _, folder, kind, _ = uninterrupted
    parts = {"lora": ["adapter/adapter_model.safetensors", "adapter/adapter_config.json"]}
    parts["prompt"] = ["visual_prompt.safetensors"]
    for name in [name for part in kind.split("+") for name in parts[part]]:
        for step in (2, 3):
            shutil.copytree(
                folder / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}", dirs_exist_ok=True
            )
        assert last_good_checkpoint(tmp_path) == tmp_path / "checkpoint-3"
        (tmp_path / "checkpoint-3" / name).unlink()
        assert last_good_checkpoint(tmp_path) == tmp_path / "checkpoint-2", name


def test_the_checkpoint_is_the_trained_model(uninterrupted, tmp_path):
    trainer, _, kind, _ = uninterrupted
    trainer.save_model(str(tmp_path))
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = trainer.model.eval().encode_image(pixels)
        assert torch.allclose(
            RobustCLIPModel.from_pretrained(tmp_path).eval().encode_image(pixels), expected, atol=1e-5
        )
        stock = (
            CLIPModel.from_pretrained(tmp_path).eval().get_image_features(pixel_values=pixels).pooler_output
        )
    assert torch.allclose(stock, expected, atol=1e-5) == ("prompt" not in kind)
    (tmp_path / "notes.txt").touch()
    remove_earlier_run(tmp_path)
    assert not (tmp_path / "adapter").exists() and not list(tmp_path.glob("*.safetensors"))
    assert (tmp_path / "notes.txt").exists()


def test_resuming_on_another_base(uninterrupted, tiny_tree, tmp_path):
    """An adapter is refused; without one the checkpoint holds all weights."""
    straight, folder, kind, _ = uninterrupted
    other = lora_run(make_tiny_clip(tmp_path / "base", seed=1), tmp_path / "run", tiny_tree, kind)
    last = str(folder / "checkpoint-3")
    if kind == "lora":
        with pytest.raises(ForeignCheckpointError, match="model_name_or_path"):
            other._load_from_checkpoint(last)
    else:
        other._load_from_checkpoint(last)
        assert furthest(weights(other.model), weights(straight.model)) == 0


def test_the_best_model_comes_back_with_its_adapter(tiny_clip_dir, tiny_tree, tmp_path):
    trainer = lora_run(tiny_clip_dir, tmp_path, tiny_tree, "lora+prompt", max_steps=2)
    trainer.train()
    last = weights(trainer.model)
    trainer.state.best_model_checkpoint = str(tmp_path / "checkpoint-1")
    trainer._load_best_model()
    best = weights(trainer.model)
    fresh = lora_run(tiny_clip_dir, tmp_path / "fresh", tiny_tree, "lora+prompt")
    fresh._load_from_checkpoint(str(tmp_path / "checkpoint-1"))
    assert furthest(best, weights(fresh.model)) == 0 and furthest(best, last) > 0


class Meddler(TrainerCallback):
    """Something that changes a base weight during the step."""

    def __init__(self, when: int):
        self.when = when

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        if state.global_step == self.when:
            with torch.no_grad():
                model.vision_model.post_layernorm.bias[0] += 1e-7


SHORT = {"objective": "tecoa", "max_steps": 2, "save_strategy": "no"}


class TestInvariants:
    def test_a_moving_base_weight_stops_the_first_step(self, tiny_clip_dir, tiny_tree, tmp_path):
        trainer = lora_run(tiny_clip_dir, tmp_path, tiny_tree, callbacks=[Meddler(0)], **SHORT)
        with pytest.raises(FrozenWeightsError, match=r"1 frozen weights moved.*post_layernorm\.bias"):
            trainer.train()
        assert trainer.state.global_step == 0

    def test_a_moving_reference_is_noticed_at_the_end(self, tiny_clip_dir, tiny_tree, tmp_path):
        trainer = lora_run(tiny_clip_dir, tmp_path, tiny_tree, callbacks=[Meddler(1)], **SHORT)
        with pytest.raises(ReferenceChangedError, match=r"post_layernorm\.bias"):
            trainer.train()

    def test_adapters_outside_the_optimiser(self, tiny_clip_dir, tiny_tree, tmp_path):
        trainer = lora_run(tiny_clip_dir, tmp_path, tiny_tree, **SHORT)
        lost = trainer.model.vision_model.encoder.layers[0].mlp.fc1
        for parameter in lost.parameters():
            parameter.requires_grad_(False)
        with pytest.raises(FrozenWeightsError, match=r"1 of 12 adapters did not move.*layers\.0\.mlp\.fc1"):
            trainer.train()

    def test_a_warm_up_starts_without_a_step(self, tiny_clip_dir, tiny_tree, tmp_path, monkeypatch):
        from hf_hierrobust.training import callbacks

        checked = []
        verify = callbacks.MovementCheck.verify
        monkeypatch.setattr(callbacks.MovementCheck, "verify", lambda self: checked.append(1) or verify(self))
        lora_run(tiny_clip_dir, tmp_path, tiny_tree, warmup_steps=1, **SHORT).train()
        assert checked == [1]
