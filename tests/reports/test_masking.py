"""One sentence on gradient masking, with its verdict."""

from __future__ import annotations

import pytest
from example_records import PGD, make_record

from hf_hierrobust.evaluation import build_attacks
from hf_hierrobust.evaluation.plan import describe_attacks
from hf_hierrobust.reports.masking import masking_sentence

NONE = {"zero_gradient_fraction": 0.004, "masking": "none seen"}


def test_kind34_one_sentence_on_masking_says_what_was_seen():
    said = masking_sentence([make_record(checks=NONE), make_record(checks=NONE, seed=1)])
    assert said.startswith("No sign of gradient masking was seen: ") and "at most 0.4 %" in said
    assert said.count(".") == 2 and "larger budgets" not in said
    found = make_record(checks=NONE | {"masking": "suspected: margin broke 12.0% of the images"})
    said = masking_sentence([make_record(checks=NONE), found])
    assert said.startswith("Gradient masking is suspected") and "leaf, cosine" in said
    assert "margin broke 12.0%" in said
    assert masking_sentence([make_record()]) == "Signs of gradient masking were not looked for."
    assert masking_sentence([]) == ""


def test_kind34_a_larger_budget_that_breaks_fewer_images_is_a_sign():
    def at(level: int, robust: float):
        return make_record(attack=PGD | {"eps": level / 255}, robust_accuracy=robust, checks=NONE)

    assert "larger budgets broke more images" in masking_sentence([at(1, 0.5), at(4, 0.4)])
    assert "fewer images than a smaller one" in masking_sentence([at(1, 0.4), at(4, 0.5)])


@pytest.mark.parametrize("name", ["pgd", "pgd-ce", "apgd-ce+t", "autoattack", "fab, square"])
@pytest.mark.parametrize("step", [None, "1/255"])
def test_budgets_of_several_attacks_are_compared_too(name, step):
    """Each of them holds the budget and, under "attacks", perhaps a step of its own."""
    options = {} if step is None or "pgd" not in name or "apgd" in name else {"step_size": step}

    def at(level: int, robust: float, **changes):
        attack = describe_attacks(build_attacks(name, eps=level / 255, **options))
        return make_record(attack=attack, robust_accuracy=robust, checks=NONE, base=None, **changes)

    assert "larger budgets broke more images" in masking_sentence([at(1, 0.5), at(4, 0.3)])
    assert "fewer images than a smaller one" in masking_sentence([at(4, 0.5), at(1, 0.3)])
    for other in ({"seed": 1}, {"split": "train"}, {"templates_hash": "a"}, {"model_hash": "b"}):
        assert "larger budget" not in masking_sentence([at(4, 0.5), at(1, 0.3, **other)])
    # Of a budget that was measured twice the attack that broke more counts.
    assert "fewer images than" in masking_sentence([at(4, 0.4), at(1, 0.3), at(1, 0.5)])
