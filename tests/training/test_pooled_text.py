"""The universal attack's text perturbation on the pooled states, before the text projection."""

from __future__ import annotations

import pytest
import torch
from tiny_runs import first_batch, inner_loss_of, make_trainer, perturb, views_of

from hf_hierrobust.attacks import PerLevelAttack, Perturbation, UniversalHierarchicalAttack
from hf_hierrobust.objectives import Targets

EPS = 0.05


def pooled(clip_dir, folder, tree, cls=UniversalHierarchicalAttack, objective="hier_robust", **options):
    attack = cls(text_perturbation="pooled", text_eps=EPS, num_steps=2, **options)
    trainer = make_trainer(clip_dir, folder, objective=objective, attack=attack, tree=tree)
    trainer.calibrate()
    return trainer


def test_training_sees_the_text_that_the_attack_made(tiny_clip_dir, tiny_tree, tmp_path):
    trainer = pooled(tiny_clip_dir, tmp_path, tiny_tree)
    pixels, labels = first_batch(trainer)
    (found,) = perturb(trainer, pixels, labels)
    text = trainer.step.views.text
    assert found.text_delta.shape == text.states.shape and float(found.text_delta.abs().max()) <= EPS + 1e-6
    (view,), _ = views_of(trainer, pixels, labels, [found])
    model = trainer.model
    moved = (text.states + found.text_delta) @ model.text_projection.weight.T
    expected = model.hier_head.log_text_scale.exp()[trainer.objective.text_levels, None] * moved
    assert view.text_delta is None
    torch.testing.assert_close(view.text_tangent, expected)
    torch.testing.assert_close(view.text_features, text.states @ model.text_projection.weight.T)
    hita = trainer.objective.inner_loss(view, Targets(labels))
    torch.testing.assert_close(hita.detach(), inner_loss_of(trainer, pixels, labels, found))
    assert float(hita.detach()) > float(
        inner_loss_of(trainer, pixels, labels, found._replace(text_delta=None))
    )


def test_its_gradient_is_that_of_finite_differences(tiny_clip_dir, tiny_tree, tmp_path):
    trainer = pooled(tiny_clip_dir, tmp_path, tiny_tree)
    pixels, labels = first_batch(trainer)
    states = trainer.step.views.text.states
    delta = torch.zeros_like(states).requires_grad_()
    (gradient,) = torch.autograd.grad(
        inner_loss_of(trainer, pixels, labels, Perturbation(pixels, delta)), delta
    )
    direction = gradient / gradient.norm()
    ends = [
        float(inner_loss_of(trainer, pixels, labels, Perturbation(pixels, sign * 0.02 * direction)))
        for sign in (1, -1)
    ]
    assert (ends[0] - ends[1]) / 0.04 == pytest.approx(float(gradient.norm()), rel=2e-2)


def test_each_levels_perturbation_moves_its_own_text(tiny_clip_dir, tiny_tree, tmp_path):
    trainer = pooled(tiny_clip_dir, tmp_path, tiny_tree, cls=PerLevelAttack)
    pixels, labels = first_batch(trainer)
    found = perturb(trainer, pixels, labels)
    views, _ = views_of(trainer, pixels, labels, found)
    assert len(views) == 2
    for view, one in zip(views, found):
        (alone,), _ = views_of(trainer, pixels, labels, [one])
        torch.testing.assert_close(view.text_tangent, alone.text_tangent)
    trainer.compute_loss(trainer.model, {"pixels": pixels, "labels": labels}).backward()
    assert float(trainer.model.text_projection.weight.grad.abs().max()) > 0


def test_a_trained_text_tower_has_no_fixed_states_to_perturb(tiny_clip_dir, tiny_tree, tmp_path):
    with pytest.raises(ValueError, match=r"text_perturbation='pooled'.*'hier_mmcoa'.*take 'tangent'"):
        pooled(tiny_clip_dir, tmp_path, tiny_tree, objective="hier_mmcoa")
    with pytest.raises(ValueError, match="text_perturbation='pool'"):
        UniversalHierarchicalAttack(text_perturbation="pool")
