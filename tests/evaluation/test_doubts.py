"""Signs of masked gradients, and which images were measured."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hf_hierrobust.attacks import PGD
from hf_hierrobust.evaluation import attack_classifier
from hf_hierrobust.evaluation.doubts import checks, masking, per_class

EPS = 8 / 255


def grey(values) -> list[dict]:
    values = torch.tensor(values)
    pixels = values.view(-1, 1, 1, 1).expand(-1, 3, 4, 4).clone()
    return [{"pixels": pixels, "labels": (values > 0.5).long()}]


def brightness(scale: float):
    """Class 1 if the image is brighter than 0.5, by logits of +-scale times the distance."""

    def logits(pixels):
        z = scale * (pixels.flatten(1).mean(1) - 0.5)
        return torch.stack([-z, z], dim=1)

    return logits


def fp32_cross_entropy(logits, labels):
    """What attacks used to maximise: the gradient of a saturated softmax is lost in its rounding."""
    return F.cross_entropy(logits.float(), labels, reduction="none")


NEAR = [0.49, 0.51, 0.485, 0.515, 0.1, 0.9]  # four within 8/255 of the boundary


def measured(classifier, *losses):
    attacks = [PGD(eps=EPS, num_steps=5, loss=loss, random_start="zero") for loss in losses]
    return attack_classifier(classifier, grey(NEAR), attacks)


def test_kind03_a_loss_without_exact_zeros_that_went_blind_is_suspected():
    """A cross-entropy of logits in the thousands has no gradient; the margin shows it."""
    outcome = measured(brightness(1e4), fp32_cross_entropy, "margin")
    assert outcome.robust.sum() == 2
    assert masking(outcome, ["ce", "margin"]).startswith("suspected: ")
    leaky = outcome._replace(zero_gradient=(0.0, 0.0), after=(1.0, 1 / 3))  # tiny, yet not zero
    assert masking(leaky, ["ce", "margin"]) == (
        "suspected: margin broke 66.7% of the images that stood after ce (100.0% to 33.3%)"
    )


def test_kind03_float64_cross_entropy_is_not_blind():
    outcome = measured(brightness(100), "ce", "margin")
    assert outcome.robust.sum() == 2 and masking(outcome, ["ce", "margin"]) == "none seen"


def test_kind03_a_margin_without_gradient_is_suspected():
    """Two equal classes tie for ever; so does a network of steps."""
    outcome = measured(lambda x: brightness(10)(x).sign() + 0 * x.sum(), "margin")
    assert masking(outcome, ["margin"]) == (
        "suspected: margin had an exactly zero first gradient on 100.0% of the images"
    )


def test_small_differences_between_attacks_are_none():
    outcome = measured(brightness(10), "ce", "margin")._replace(after=(0.30, 0.26), attacked=(0.9, 0.3))
    assert masking(outcome, ["ce", "margin"]) == "none seen"
    last_survivor = outcome._replace(zero_gradient=(0.0, 1.0), attacked=(0.9, 0.005))
    assert masking(last_survivor, ["ce", "margin"]) == "none seen"
    found = checks(outcome, ["ce", "margin"])
    assert found["robust_after_ce"] == 0.30 and found["robust_after_margin"] == 0.26
    assert found["masking"] == "none seen" and found["zero_gradient_fraction"] == 0


@pytest.mark.parametrize(
    ("labels", "spread"),
    [
        ([0, 0, 1, 2, 2, 2], {"least": 1, "most": 3, "without": 0}),
        ([0, 0, 2, 2], {"least": 0, "most": 2, "without": 1}),
    ],
)
def test_kind28_the_record_counts_images_per_class(labels, spread):
    assert per_class(labels, 3) == spread


def test_outcomes_count_what_each_attack_saw():
    outcome = measured(brightness(10), "ce", "margin")
    assert outcome.attacked == (1, pytest.approx(1 / 3)) and outcome.after == (pytest.approx(1 / 3),) * 2
    assert outcome.cost.backwards > 0 and outcome.cost.forwards > 1
