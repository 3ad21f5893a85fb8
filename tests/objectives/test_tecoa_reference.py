"""TeCoA (2212.07016) and clean fine-tuning against cross-entropy over the class prompts, class by class."""

from __future__ import annotations

import pytest
from flat_batch import CLASSES, SCALE, assert_same, cross_entropy, make_batch

from hf_hierrobust.objectives import Clean, TeCoA


@pytest.mark.parametrize("cls", [TeCoA, Clean])
def test_loss_and_gradient_equal_the_reference(cls):
    batch, objective = make_batch(), cls()
    objective.setup(CLASSES)
    (loss,) = objective.loss([batch.view()], batch.targets()).values()
    expected = cross_entropy(batch.attacked, batch.texts, batch.labels, SCALE)
    assert_same(loss, expected, batch.leaves)
    inner = objective.inner_loss(batch.view(), batch.attack_targets())
    assert inner.shape == batch.labels.shape
    assert_same(inner.mean(), expected, batch.leaves)


def test_tecoa_trains_on_attacked_images_and_clean_fine_tuning_on_clean_ones():
    assert (TeCoA.default_attack, Clean.default_attack) == ("pgd", "none")
    assert TeCoA().needs == Clean().needs == {"text_nodes"}
