"""Plain adversarial fine-tuning: cross-entropy under a fixed orthonormal classifier."""

from __future__ import annotations

import pytest
import torch
from flat_batch import BATCH, CLASS_COUNT, CLASSES, DIM, SCALE, assert_same, cross_entropy, make_batch

from hf_hierrobust.objectives import OBJECTIVES, Plain


def make_objective(classes=CLASSES, **options) -> Plain:
    objective = OBJECTIVES.get("plain")(**options)
    objective.setup(classes)
    return objective


def test_loss_and_gradient_equal_the_reference():
    batch, objective = make_batch(), make_objective()
    terms = objective.loss([batch.view()], batch.targets())
    rows = objective.classifier(batch.attacked)
    assert list(terms) == ["ce"]
    assert_same(terms["ce"], cross_entropy(batch.attacked, rows, batch.labels, SCALE), batch.leaves)
    inner = objective.inner_loss(batch.view(), batch.attack_targets())
    assert inner.shape == (BATCH,) and torch.equal(inner.mean(), terms["ce"])


def test_the_classifier_is_orthonormal_fixed_and_seeded():
    features = torch.zeros(1, DIM)
    rows = make_objective().classifier(features)
    assert rows.shape == (CLASS_COUNT, DIM) and not rows.requires_grad
    torch.testing.assert_close(rows @ rows.T, torch.eye(CLASS_COUNT), atol=1e-6, rtol=0)
    torch.manual_seed(99)  # the global generator does not matter
    assert torch.equal(rows, make_objective().classifier(features))
    assert not torch.allclose(rows, make_objective(seed=1).classifier(features))
    objective = make_objective()
    objective.classifier(features)
    objective.setup(CLASSES[:3])
    assert objective.classifier(features).shape == (3, DIM)


def test_more_classes_than_dimensions_share_them_evenly():
    rows = make_objective([f"class {i}" for i in range(9)]).classifier(torch.zeros(1, DIM))
    torch.testing.assert_close(rows.T @ rows, torch.eye(DIM), atol=1e-6, rtol=0)
    assert float(rows.norm(dim=1).min()) > 0.1, "a row too short to have a direction"


def test_text_does_not_matter():
    batch, objective = make_batch(), make_objective()
    loss = objective.loss([batch.view()], batch.targets())["ce"]
    batch.texts = batch.texts[:0]
    assert torch.equal(loss, objective.loss([batch.view()], batch.targets())["ce"])
    assert objective.needs == frozenset()


@pytest.mark.parametrize("seed", [-1, 0.5, True])
def test_a_wrong_seed_is_refused(seed):
    with pytest.raises(ValueError, match=f"seed={seed} must be an integer, at least 0"):
        Plain(seed=seed)
