"""One sentence on gradient masking, with its verdict."""

from __future__ import annotations

from example_records import PGD, make_record

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
