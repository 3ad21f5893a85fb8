"""AdvFLYP against its equations (2604.11576)."""

from __future__ import annotations

import pytest
import torch
from flat_batch import assert_same, log_softmax
from pair_batch import CLASSES, PairBatch, both_ways, cosine, positives_of

from hf_hierrobust.objectives import AdvFLYP


def make_objective(**options) -> AdvFLYP:
    objective = AdvFLYP(**options)
    objective.setup(CLASSES)
    return objective


def divergence(images, anchors, captions, anchor_captions, scale) -> torch.Tensor:
    """KL(P_images || P_anchors), each over the captions as its own text side sees them; mean over images."""
    total = 0.0
    for image, anchor in zip(images, anchors):
        p, q = (
            log_softmax([scale * cosine(side, text) for text in texts])
            for side, texts in ((image, captions), (anchor, anchor_captions))
        )
        total = total + sum(a.exp() * (a - b) for a, b in zip(p, q))
    return total / len(images)


def distance(a, b) -> torch.Tensor:
    return sum((u / u.norm() - v / v.norm()).norm() for u, v in zip(a, b)) / len(a)


@pytest.mark.parametrize("positives", ["class", "diagonal"])
@pytest.mark.parametrize("captions", ["prompts", "own"])
def test_every_term_equals_the_reference(captions, positives):
    batch = PairBatch(captions)
    objective = make_objective(positives=positives, lambda_logit=0.7, lambda_feature=1.3)
    terms = objective.loss([batch.view()], batch.targets())
    assert list(terms) == ["contrastive", "logit", "feature"]
    mine = positives_of(batch, positives)
    contrastive = both_ways(batch.attacked, batch.captions, batch.scale, mine) / 2
    assert_same(terms["contrastive"], contrastive, batch.leaves)
    logit = sum(
        divergence(batch.attacked, anchor, batch.captions, captions, batch.scale)
        for anchor, captions in (
            (batch.clean, batch.captions),
            (batch.original_attacked, batch.original_captions),
        )
    )
    # the original's own multiplier is a constant, here of the same value
    assert_same(terms["logit"], 0.7 * logit, batch.leaves[:-1])
    feature = distance(batch.attacked, batch.clean) + distance(batch.attacked, batch.original_attacked)
    # the guard of the square root moves a distance of order 1 by 1e-12
    assert_same(terms["feature"], 1.3 * feature, batch.leaves)


def test_defaults_are_the_full_version_with_weights_of_one():
    batch = PairBatch("own")
    views, targets = [batch.view()], batch.targets()
    terms = make_objective().loss(views, targets)
    explicit = make_objective(lambda_logit=1, lambda_feature=1, positives="diagonal").loss(views, targets)
    assert terms.keys() == explicit.keys() == {"contrastive", "logit", "feature"}
    assert all(torch.equal(terms[name], explicit[name]) for name in terms)


def test_the_attack_maximises_the_contrastive_loss_alone():
    batch = PairBatch("own")
    objective = make_objective()
    targets = batch.targets()._replace(clean=None, attacked_reference=None)
    inner = objective.inner_loss(batch.view(), targets)
    assert inner.shape == batch.labels.shape
    assert torch.equal(inner.mean(), objective.loss([batch.view()], batch.targets())["contrastive"])


def test_the_plain_version_needs_no_anchors():
    batch, plain = PairBatch(), make_objective(lambda_logit=0, lambda_feature=0)
    assert plain.needs == {"captions"}
    targets = batch.targets()._replace(clean=None, attacked_reference=None)
    assert list(plain.loss([batch.view()], targets)) == ["contrastive"]
    anchored = {"captions", "clean", "attacked_reference"}
    assert make_objective(lambda_logit=0).needs == anchored
    assert make_objective(lambda_feature=0).needs == anchored | {"original_captions"}
    assert make_objective().trained_groups == ("vision",)


def test_before_training_the_distance_to_the_original_has_a_finite_gradient():
    batch = PairBatch()
    batch.original_attacked = batch.attacked.detach().clone()
    feature = make_objective().loss([batch.view()], batch.targets())["feature"]
    (gradient,) = torch.autograd.grad(feature, batch.attacked)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lambda_logit": -0.1}, "lambda_logit=-0.1 must be a number, at least 0"),
        ({"lambda_feature": None}, "lambda_feature=None must be a number"),
        ({"positives": "all"}, "positives='all' is unknown: choose one of class, diagonal"),
    ],
    ids=str,
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        AdvFLYP(**options)
