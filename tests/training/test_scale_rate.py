"""The head's scales have a learning rate of their own and no weight decay."""

from __future__ import annotations

import pytest
import torch
from tiny_runs import make_trainer

ADAM = {"optim": "adamw_torch", "learning_rate": 1e-3, "weight_decay": 0.5}


def optimizer_of(trainer):
    return trainer.create_optimizer()


@pytest.mark.parametrize(
    "options, rate",
    [
        ({}, 3e-3),
        ({"optim": "sgd"}, 1e-3),
        ({"scale_learning_rate": 1e-2}, 1e-2),
        ({"scale_learning_rate": 1e-2, "optim": "sgd"}, 1e-2),
    ],
)
def test_scales_are_a_group(tiny_clip_dir, tiny_tree, tmp_path, options, rate):
    trainer = make_trainer(
        tiny_clip_dir, tmp_path, objective="hier_robust", tree=tiny_tree, **(ADAM | options)
    )
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    scales = [p for p in trainer.model.hier_head.parameters() if p.requires_grad]
    *others, last = optimizer_of(trainer).param_groups
    assert last["lr"] == pytest.approx(rate) and last["weight_decay"] == 0
    assert {id(p) for p in last["params"]} == {id(p) for p in scales} and scales
    rest = [p for group in others for p in group["params"]]
    assert len(rest) + len(scales) == len(trained) == len({id(p) for p in [*rest, *last["params"]]})
    assert all(group["lr"] == 1e-3 for group in others)


def test_no_group_without_trained_scales(tiny_clip_dir, tmp_path):
    groups = optimizer_of(make_trainer(tiny_clip_dir, tmp_path, objective="tecoa", **ADAM)).param_groups
    assert all(group["lr"] == 1e-3 for group in groups)


def test_scales_move_by_their_rate(tiny_clip_dir, tiny_tree, tmp_path):
    """One step of Adam moves a parameter by its rate, whatever its gradient."""
    trainer = make_trainer(
        tiny_clip_dir,
        tmp_path,
        objective="hier_robust",
        tree=tiny_tree,
        max_steps=1,
        scale_learning_rate=1e-2,
        **ADAM,
    )
    trainer.calibrate()
    before = trainer.model.hier_head.log_image_scale.detach().clone()
    trainer.train()
    moved = (trainer.model.hier_head.log_image_scale - before).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 1e-2), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("rate", [0, -1e-3, float("nan"), "fast"])
def test_wrong_rate(tiny_clip_dir, tiny_tree, tmp_path, rate):
    with pytest.raises(ValueError, match="scale_learning_rate"):
        make_trainer(
            tiny_clip_dir, tmp_path, objective="hier_robust", tree=tiny_tree, scale_learning_rate=rate
        )


def test_refused_without_scales(tiny_clip_dir, tmp_path):
    with pytest.raises(ValueError, match=r"scale_learning_rate=0\.1 has no effect: .tecoa. trains no scales"):
        make_trainer(tiny_clip_dir, tmp_path, objective="tecoa", scale_learning_rate=0.1)


def test_refused_beside_an_optimizer(tiny_clip_dir, tiny_tree, tmp_path):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    with pytest.raises(ValueError, match=r"scale_learning_rate=0\.1 has no effect beside the optimizer"):
        make_trainer(
            tiny_clip_dir,
            tmp_path,
            objective="hier_robust",
            tree=tiny_tree,
            scale_learning_rate=0.1,
            trainer={"optimizers": (optimizer, None)},
        )
