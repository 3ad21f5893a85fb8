"""What happened before a training leaves no mark on it: measuring, another trainer, the global generators."""

from __future__ import annotations

import pytest
import torch
from tiny_data import make_images
from tiny_runs import batch_of, first_batch, furthest, make_trainer, train, weights

from hf_hierrobust.data import PixelDataset
from hf_hierrobust.modeling import RobustCLIPModel
from hf_hierrobust.training.wrapping import NotAveragedError, check_averaged

OPTIONS = {"lora_r": 2, "lora_dropout": 0.3, "max_steps": 3}


@pytest.fixture(scope="module")
def alone(tiny_clip_dir, tmp_path_factory):
    return weights(train(tiny_clip_dir, tmp_path_factory.mktemp("alone"), **OPTIONS).model)


def measured(trainer, tmp_path):
    trainer.evaluate()
    trainer.predict(PixelDataset(make_images(8, seed=3)))
    trainer.save_model(str(tmp_path / "untrained"))


def stepped(trainer, tmp_path):
    trainer.calibrate()
    trainer.step.perturb(batch_of(trainer, *first_batch(trainer)), trainer._starts)


def seeded(trainer, tmp_path):
    torch.manual_seed(999)


@pytest.mark.parametrize("before", [measured, stepped, seeded])
def test_what_came_before_does_not_show(before, alone, tiny_clip_dir, tmp_path):
    evaluation = PixelDataset(make_images(8, seed=1))
    options = OPTIONS | {"evaluation": evaluation, "robust_eval_steps": 1, "robust_eval_samples": 8}
    trainer = make_trainer(tiny_clip_dir, tmp_path / "run", **options)
    before(trainer, tmp_path)
    trainer.train()
    assert furthest(weights(trainer.model), alone) == 0


def test_another_trainer_made_later_does_not_show(alone, tiny_clip_dir, tmp_path):
    trainer = make_trainer(tiny_clip_dir, tmp_path / "a", **OPTIONS)
    make_trainer(tiny_clip_dir, tmp_path / "b", **OPTIONS | {"seed": 8})
    trainer.train()
    assert furthest(weights(trainer.model), alone) == 0


@pytest.mark.parametrize("first, second", [(True, False), (False, True)])
def test_a_model_trains_in_the_precision_of_its_own_trainer(first, second, tiny_clip_dir, tmp_path):
    """accelerate keeps the autocast, or its absence, of the trainer that prepared the model first."""
    model = RobustCLIPModel.from_pretrained(tiny_clip_dir)
    make_trainer(model, tmp_path / "a", evaluation=PixelDataset(make_images(8)), bf16=first).evaluate()
    trainer, seen = make_trainer(model, tmp_path / "b", bf16=second, max_steps=1), []

    def note(module, args, out):
        seen.append(out.dtype)

    model.visual_projection.register_forward_hook(note)  # the last of a step is the training forward
    trainer.train()
    assert seen[-1] == (torch.bfloat16 if second else torch.float32)


def test_several_processes_without_a_wrapper_are_refused(tiny_clip_dir, tmp_path):
    trainer = make_trainer(tiny_clip_dir, tmp_path)
    check_averaged(trainer.model, processes=1)
    with pytest.raises(NotAveragedError, match=r"2 processes.*each would train alone"):
        check_averaged(trainer.model, processes=2)
