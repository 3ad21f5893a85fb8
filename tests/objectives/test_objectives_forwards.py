"""What one training step forwards, whichever the objective: images once, the original once and cheaply."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from tiny_runs import first_batch, make_trainer
from torch import nn

from hf_hierrobust.hierarchy import Forest
from hf_hierrobust.objectives import OBJECTIVES

STEPS = 3


class Call(NamedTuple):
    """One forward of an image tower: how many images, and under what."""

    images: int
    gradients: bool
    weights: bool
    autocast: bool
    training: bool


def watch(tower: nn.Module) -> list[Call]:
    """The list that every forward of this tower will be appended to."""
    calls: list[Call] = []

    def note(module, args, kwargs):
        pixel_values = args[0] if args else kwargs["pixel_values"]
        weights = any(p.requires_grad for p in module.parameters())
        gradients, autocast = torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")
        calls.append(Call(len(pixel_values), gradients, weights, autocast, module.training))

    tower.register_forward_pre_hook(note, with_kwargs=True)
    return calls


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_one_forward_of_all_images_and_one_of_the_original(name, tiny_clip_dir, tiny_tree, tmp_path):
    steps = {} if name == "clean" else {"num_steps": STEPS}
    trainer = make_trainer(
        tiny_clip_dir, tmp_path, objective=name, tree=Forest((tiny_tree,)), bf16=True, **steps
    )
    trainer.calibrate()
    pixels, labels = first_batch(trainer)
    own = watch(trainer.model.vision_model)
    reference, original = trainer.step.views.reference, []
    if reference is not None:
        assert not reference.shared, "full fine-tuning has a copy"
        original = watch(reference.model.vision_model)
    trainer.model.train()
    with trainer.accelerator.autocast():
        trainer.compute_loss(trainer.model, {"pixels": pixels, "labels": labels})

    needs, size = trainer.objective.needs, len(pixels)
    assert all(call.autocast for call in own + original)
    *attack, training = own
    assert training == Call(size * (1 + ("clean" in needs)), True, True, True, True)
    assert len(attack) == (0 if trainer.attack is None else STEPS)
    assert set(attack) <= {Call(size, gradients=True, weights=False, autocast=True, training=False)}
    wanted = len(needs & {"reference", "attacked_reference"})
    assert original == [Call(size, False, False, True, False)] * wanted
