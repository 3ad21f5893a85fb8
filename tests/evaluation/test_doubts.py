"""Signs of masked gradients, and which images were measured."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from example_records import make_record

from hf_hierrobust.attacks import PGD, AutoAttack, Cost
from hf_hierrobust.evaluation import Outcome, attack_classifier
from hf_hierrobust.evaluation.doubts import HONEST, Look, checks, masking, per_class
from hf_hierrobust.reports.masking import masking_sentence

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


PAIR = [Look("ce", "untargeted", 5), Look("margin", "untargeted", 5)]


def measured(classifier, *losses):
    attacks = [PGD(eps=EPS, num_steps=5, loss=loss, random_start="zero") for loss in losses]
    return attack_classifier(classifier, grey(NEAR), attacks)


def test_kind03_a_loss_without_exact_zeros_that_went_blind_is_suspected():
    """A cross-entropy of logits in the thousands has no gradient; the margin shows it."""
    outcome = measured(brightness(1e4), fp32_cross_entropy, "margin")
    assert outcome.robust.sum() == 2
    assert masking(outcome, PAIR).startswith("suspected: ")
    leaky = outcome._replace(zero_gradient=(0.0, 0.0), after=(1.0, 1 / 3))  # tiny, yet not zero
    assert masking(leaky, [PAIR[0]._replace(num_steps=1), PAIR[1]]) == "none seen", "five times the steps"
    assert masking(leaky, PAIR) == (
        "suspected: margin broke 66.7% of the images that stood after ce (100.0% to 33.3%)"
    )


def test_kind03_float64_cross_entropy_is_not_blind():
    outcome = measured(brightness(100), "ce", "margin")
    assert outcome.robust.sum() == 2 and masking(outcome, PAIR) == "none seen"


def test_kind03_a_margin_without_gradient_is_suspected():
    """Two equal classes tie for ever; so does a network of steps."""
    outcome = measured(lambda x: brightness(10)(x).sign() + 0 * x.sum(), "margin")
    assert masking(outcome, PAIR[1:]) == (
        "suspected: margin had an exactly zero first gradient on 100.0% of the images"
    )


def test_small_differences_between_attacks_are_none():
    outcome = measured(brightness(10), "ce", "margin")._replace(after=(0.30, 0.26), attacked=(0.9, 0.3))
    assert masking(outcome, PAIR) == "none seen"
    last_survivor = outcome._replace(zero_gradient=(0.0, 1.0), attacked=(0.9, 0.005))
    assert masking(last_survivor, PAIR) == "none seen"
    found = checks(outcome, PAIR)
    assert found["robust_after_ce"] == 0.30 and found["robust_after_margin"] == 0.26
    assert found["masking"] == "none seen" and found["zero_gradient_fraction"] == 0


def test_zero_gradients_are_counted_among_all_images():
    """A later attack saw one survivor of 200, without any gradient: that is no share of 100 %."""
    clean, robust = torch.ones(200, dtype=torch.bool), torch.zeros(200, dtype=torch.bool)
    robust[0] = True
    outcome = Outcome(clean, robust, (1 / 200, 1 / 200), (1.0, 1 / 200), (0.0, 1.0), Cost(), 1.0)
    found = checks(outcome, PAIR)
    assert found["zero_gradient_fraction"] == 1 / 200 and found["masking"] == "none seen"
    assert "on at most 0.5 % of the images" in masking_sentence([make_record(checks=found)])


STANDARD = AutoAttack(eps=EPS)
PLUS = AutoAttack(eps=EPS, version="plus")


@pytest.mark.parametrize(
    ("attacks", "after", "suspect"),
    [
        # A hundred classes: what honest models lose from one attack of AutoAttack to the next.
        (STANDARD, (0.40, 0.32, 0.32, 0.32), None),
        (STANDARD, (0.206, 0.13, 0.129, 0.129), None),
        (STANDARD, (0.30, 0.26, 0.26, 0.259), None),
        (PLUS, (0.40, 0.36, 0.358, 0.357, 0.32, 0.32), None),
        # Published defences that mask (2003.01690): cross-entropy went blind, or only answers break them.
        (STANDARD, (0.618, 0.294, 0.293, 0.293), "apgd-t broke 32.4%"),
        (STANDARD, (0.56, 0.36, 0.36, 0.36), "apgd-t broke 20.0%"),
        (STANDARD, (0.40, 0.37, 0.37, 0.35), "square broke 2.0%"),
        (STANDARD, (0.40, 0.37, 0.30, 0.30), "fab-t broke 7.0%"),
        (PLUS, (0.40, 0.25, 0.25, 0.25, 0.24, 0.24), "apgd_dlr broke 15.0%"),
        (PLUS, (0.40, 0.38, 0.38, 0.30, 0.30, 0.30), "square_margin broke 8.0%"),
    ],
)
def test_what_honest_models_lose_to_a_stronger_attack_is_no_sign(attacks, after, suspect):
    """Of 1,000 images each; the figures are shares that stand after each attack."""
    clean, none = torch.ones(1000, dtype=torch.bool), (0.0,) * len(after)
    outcome = Outcome(clean, clean, after, none, none, cost=(0, 0), seconds=0)
    found = masking(outcome, Look.of(attacks))
    assert found.startswith(f"suspected: {suspect}") if suspect else found == "none seen"
    assert found.count(" broke ") == (suspect is not None)


@pytest.mark.parametrize("pair", [*HONEST, ("black-box", "untargeted"), ("untargeted", None)])
def test_what_an_attack_may_break_of_an_honest_model_turns_where_it_says(pair):
    """Once the interval lies above it; after queries nothing is suspicious, nor where the prompts change."""
    clean, looks = torch.ones(4000, dtype=torch.bool), [Look("a", pair[0], 20), Look("b", pair[1], 20)]

    def suspected(broken: float) -> bool:
        outcome = Outcome(clean, clean, (0.2, 0.2 - broken), (), (), cost=(0, 0), seconds=0)
        return masking(outcome, looks) != "none seen"

    limit = HONEST.get(pair)
    if limit is None:
        assert not suspected(0.2)
    else:
        assert not suspected(limit) and suspected(1.4 * limit + 0.002)


def test_one_image_is_never_a_sign():
    clean = torch.ones(20, dtype=torch.bool)
    looks = [Look("apgd-t", "targeted", 100), Look("square", "black-box")]
    for broken, suspected in ((1, False), (2, True)):
        outcome = Outcome(clean, clean, (0.4, 0.4 - broken / 20), (), (), cost=(0, 0), seconds=0)
        assert masking(outcome, looks).startswith("suspected") is suspected


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
