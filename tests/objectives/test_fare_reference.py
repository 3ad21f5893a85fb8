"""FARE against its equations (2402.12336)."""

from __future__ import annotations

import pytest
import torch
from flat_batch import BATCH, CLASSES, DIM, assert_same, make_batch

from hf_hierrobust.objectives import FARE, OBJECTIVES


def make_objective(**options) -> FARE:
    objective = OBJECTIVES.get("fare")(**options)
    objective.setup(CLASSES)
    return objective


def distance(features, targets):
    """Mean over images of the sum of squares over D."""
    rows = [sum((f[d] - t[d]) ** 2 for d in range(DIM)) for f, t in zip(features, targets)]
    return sum(rows) / BATCH


def test_loss_and_gradient_equal_the_reference():
    batch, objective = make_batch(), make_objective()
    terms = objective.loss([batch.view()], batch.targets())
    assert list(terms) == ["embedding"]
    assert_same(terms["embedding"], distance(batch.attacked, batch.original), batch.leaves)
    inner = objective.inner_loss(batch.view(), batch.attack_targets())
    assert inner.shape == (BATCH,) and torch.equal(inner.mean(), terms["embedding"])


@pytest.mark.parametrize("weight", [0.0, 0.3])
@pytest.mark.parametrize("target", ["original", "own"])
def test_clean_weight_and_own_target_equal_the_reference(target, weight):
    batch, objective = make_batch(), make_objective(clean_weight=weight, target=target)
    aim = batch.original if target == "original" else batch.clean.detach()
    expected = (1 - weight) * distance(batch.attacked, aim) + weight * distance(batch.clean, batch.original)
    terms = objective.loss([batch.view()], batch.targets())
    assert set(terms) == ({"embedding", "clean_embedding"} if weight else {"embedding"})
    assert_same(sum(terms.values()), expected, batch.leaves)
    # The attack aims at the original whatever the training target.
    inner = objective.inner_loss(batch.view(), batch.attack_targets())
    assert_same(inner.mean(), distance(batch.attacked, batch.original), batch.leaves)


def test_neither_text_nor_labels_nor_the_multiplier_matter():
    batch, objective = make_batch(), make_objective()
    loss = objective.loss([batch.view()], batch.targets())["embedding"]
    batch.texts, batch.labels, batch.scale = 3 * batch.texts[:0], batch.labels * 0, 1.0
    assert torch.equal(loss, objective.loss([batch.view()], batch.targets())["embedding"])


def test_needs_follow_the_options():
    assert make_objective().needs == {"reference"}
    for options in ({"clean_weight": 0.5}, {"target": "own"}):
        assert make_objective(**options).needs == {"reference", "clean"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"clean_weight": 1}, "clean_weight=1 must be below 1"),
        ({"clean_weight": -0.1}, "clean_weight=-0.1 must be a number, at least 0"),
        ({"target": "trades"}, "target='trades' is unknown: choose one of original, own"),
    ],
    ids=str,
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        FARE(**options)
