"""AGFT against its equations (2603.29410), and its limits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from flat_batch import BATCH, CLASS_COUNT, CLASSES, SCALE, assert_same, log_probabilities, make_batch

from hf_hierrobust.objectives import AGFT, OBJECTIVES


def make_objective(**options) -> AGFT:
    objective = OBJECTIVES.get("agft")(**options)
    objective.setup(CLASSES)
    return objective


def reference(batch, student_scale: float, teacher_scale: float):
    """-(1/B) sum_b sum_k q_bk log p_bk."""
    total = 0.0
    for attacked, original in zip(batch.attacked, batch.original):
        q = [value.exp() for value in log_probabilities(original, batch.texts, teacher_scale)]
        log_p = log_probabilities(attacked, batch.texts, student_scale)
        total = total - sum(q[k] * log_p[k] for k in range(CLASS_COUNT))
    return total / BATCH


@pytest.mark.parametrize(
    ("options", "student", "teacher"),
    [
        ({}, 1.8 * SCALE, 0.72 * SCALE),
        ({"gamma": 1.0, "scale": 1.0}, SCALE, SCALE),
        ({"gamma": 0.25, "scale": 2.0}, 2 * SCALE, 0.5 * SCALE),
    ],
    ids=["paper", "argument defaults of the code", "others"],
)
def test_loss_and_gradient_equal_the_reference(options, student, teacher):
    batch, objective = make_batch(), make_objective(**options)
    terms = objective.loss([batch.view()], batch.targets())
    assert list(terms) == ["alignment"]
    assert_same(terms["alignment"], reference(batch, student, teacher), batch.leaves)
    inner = objective.inner_loss(batch.view(), batch.attack_targets())
    assert inner.shape == (BATCH,) and torch.equal(inner.mean(), terms["alignment"])


def test_at_clips_scale_of_100_the_paper_uses_180_and_72():
    batch = make_batch()
    batch.scale = 100.0
    loss = make_objective().loss([batch.view()], batch.targets())["alignment"]
    assert_same(loss, reference(batch, 180.0, 72.0), batch.leaves)


def test_a_huge_gamma_is_a_hard_target():
    batch = make_batch()
    loss = make_objective(gamma=1e6).loss([batch.view()], batch.targets())["alignment"]
    with torch.no_grad():
        top = (F.normalize(batch.original) @ F.normalize(batch.texts[:CLASS_COUNT]).T).argmax(1)
    logits = 1.8 * SCALE * F.normalize(batch.attacked) @ F.normalize(batch.texts[:CLASS_COUNT]).T
    assert_same(loss, F.cross_entropy(logits, top), batch.leaves)


def test_at_the_optimum_cosine_gaps_are_gamma_times_the_originals():
    batch, objective = make_batch(), make_objective(gamma=0.4)
    batch.texts = torch.eye(CLASS_COUNT, 6, dtype=torch.float64)  # so that cosines are coordinates
    cosines = 0.1 * batch.texts.new_tensor(
        [[1, -2, 3, 0], [4, 0, -1, 2], [0, 0, 1, 5], [2, 2, 3, 1], [-3, 1, 0, 4]]
    )

    def unit(values):
        rest = (1 - values.square().sum(1, keepdim=True)).sqrt()
        return torch.cat([values, rest, torch.zeros_like(rest)], dim=1)

    batch.original = unit(cosines)
    matched, same = (unit(c).requires_grad_() for c in (0.4 * cosines + 0.05, cosines))
    for features, stationary in ((matched, True), (same, False)):
        loss = objective.loss([batch.view(features)], batch.targets())["alignment"]
        (gradient,) = torch.autograd.grad(loss, features)
        assert (gradient.abs().max() < 1e-12) == stationary


def test_labels_do_not_matter():
    batch, objective = make_batch(), make_objective()
    targets = batch.targets()
    other = targets._replace(labels=(targets.labels + 1) % CLASS_COUNT)
    assert torch.equal(*(objective.loss([batch.view()], t)["alignment"] for t in (targets, other)))


def test_it_needs_the_original_on_clean_images_only():
    assert make_objective().needs == {"reference", "text_nodes"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gamma": 0}, "gamma=0 must be a positive number"),
        ({"scale": "180"}, "scale='180' must be a positive number"),
        ({"gamma": float("nan")}, "gamma=nan must be a positive number"),
    ],
    ids=str,
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        AGFT(**options)
