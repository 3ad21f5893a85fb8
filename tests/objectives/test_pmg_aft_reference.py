"""PMG-AFT against its equations (2401.04350), its reduction to TeCoA and what the released code computes."""

from __future__ import annotations

import pytest
import torch
from flat_batch import (
    BATCH,
    CLASS_COUNT,
    CLASSES,
    SCALE,
    assert_same,
    cross_entropy,
    log_probabilities,
    make_batch,
)

from hf_hierrobust.objectives import OBJECTIVES, PMGAFT, TeCoA


def make_objective(cls=PMGAFT, **options):
    objective = cls(**options)
    objective.setup(CLASSES)
    return objective


def kl_sum(p_features, q_features, texts, scale):
    total = 0.0
    for a, b in zip(p_features, q_features):
        log_p, log_q = (log_probabilities(f, texts, scale) for f in (a, b))
        total = total + sum(log_p[k].exp() * (log_p[k] - log_q[k]) for k in range(CLASS_COUNT))
    return total


def test_the_registry_knows_it():
    assert OBJECTIVES.get("pmg_aft") is PMGAFT


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.5, 0.0), (0.0, 2.0)], ids=str)
@pytest.mark.parametrize("quirks", [False, True], ids=["equation", "released code"])
def test_loss_and_gradient_equal_the_reference(weights, quirks):
    alpha, beta = weights
    scale, count = (1.0, 1) if quirks else (SCALE, BATCH)
    batch, objective = make_batch(), make_objective(alpha=alpha, beta=beta, official_quirks=quirks)
    terms = objective.loss([batch.view()], batch.targets())
    assert set(terms) == {"ce"} | ({"kl_original"} if alpha else set()) | ({"kl_clean"} if beta else set())
    expected = cross_entropy(batch.attacked, batch.texts, batch.labels, scale)
    expected = expected + alpha * kl_sum(batch.original_attacked, batch.attacked, batch.texts, scale) / count
    expected = expected + beta * kl_sum(batch.clean, batch.attacked, batch.texts, scale) / count
    assert_same(sum(terms.values()), expected, batch.leaves)
    inner = objective.inner_loss(batch.view(), batch.attack_targets())
    ce = cross_entropy(batch.attacked, batch.texts, batch.labels, scale)
    assert_same(inner.mean(), ce, batch.leaves)


def test_without_anchors_it_is_tecoa():
    batch = make_batch()
    bare, tecoa = make_objective(alpha=0, beta=0), make_objective(TeCoA)
    targets = batch.attack_targets()._replace(reference=None)
    assert bare.loss([batch.view()], targets) == tecoa.loss([batch.view()], targets)
    assert torch.equal(bare.inner_loss(batch.view(), targets), tecoa.inner_loss(batch.view(), targets))
    assert bare.needs == tecoa.needs


def test_gradients_flow_into_the_clean_images_but_not_the_original():
    batch = make_batch()
    batch.original_attacked.requires_grad_()
    terms = make_objective().loss([batch.view()], batch.targets())
    (gradient,) = torch.autograd.grad(terms["kl_clean"], batch.clean, retain_graph=True)
    assert gradient.abs().max() > 1e-3
    assert torch.autograd.grad(terms["kl_original"], batch.clean, allow_unused=True) == (None,)


def test_quirks_ignore_clips_multiplier():
    batch = make_batch()
    losses = []
    for batch.scale in (1.0, 100.0):
        objective = make_objective(official_quirks=True)
        losses.append(sum(objective.loss([batch.view()], batch.targets()).values()))
    assert torch.equal(*losses)


def test_every_view_counts():
    """Rivals with several perturbations: each view meets the original's view of its own images."""
    batch, objective = make_batch(), make_objective()
    other = make_batch(seed=1)
    targets = batch.targets()
    second = targets._replace(
        attacked_reference=(targets.attacked_reference[0]._replace(image_features=other.original_attacked),)
    )
    view = batch.view(other.attacked)
    both = targets._replace(attacked_reference=targets.attacked_reference + second.attacked_reference)
    together = objective.loss([batch.view(), view], both)
    apart = objective.loss([batch.view()], targets), objective.loss([view], second)
    for name, value in together.items():
        torch.testing.assert_close(value, apart[0][name] + apart[1][name])


def test_needs_follow_the_weights():
    assert make_objective().needs == {"text_nodes", "attacked_reference", "clean"}
    assert make_objective(beta=0).needs == {"text_nodes", "attacked_reference"}


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="alpha=-1 must be a number, at least 0"):
        PMGAFT(alpha=-1)
    with pytest.raises(ValueError, match="official_quirks='false' must be true or false"):
        PMGAFT(official_quirks="false")
