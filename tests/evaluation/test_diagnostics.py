"""Verdicts as functions of facts: where each one turns, and what they do to a record."""

from __future__ import annotations

import pytest
from example_records import make_record

from hf_hierrobust.evaluation import diagnostics
from hf_hierrobust.evaluation.diagnostics import verdict_with


@pytest.mark.parametrize(
    ("check", "passes", "fails"),
    [
        (diagnostics.gradients, (0.01, 0.1), (0.02, 0.0)),
        (diagnostics.gradients, (0.0, 0.0), (0.0, 0.11)),
        (diagnostics.scale, (0.1, 118.0), (0.0, 500.0)),
        (diagnostics.scale, (0.0, None), (0.2, None)),
        (diagnostics.losses, ({"ce": 0.44, "margin": 0.4},), ({"ce": 0.55, "margin": 0.4},)),
        (diagnostics.losses, ({"ce": 0.84, "margin": 0.75},), ({"ce": 0.4, "margin": 0.6},)),
        (diagnostics.losses, ({"ce": 0.217, "margin": 0.17},), ({"ce": 0.217, "margin": 0.15},)),
        (diagnostics.randomised, (1e-6, 0.0), (1e-4, 0.0)),
        (diagnostics.randomised, (1e-6, 0.0, 0.01), (1e-6, 0.0, 0.03)),
        (diagnostics.train_mode, (7, 1e-7), (7, 0.2)),
        (diagnostics.train_mode, (0, 0.0), (1, 0.2)),
        (diagnostics.twins, ([], 0), ([(0, 3)], 0)),
        (diagnostics.twins, ([], 0), ([], 2)),
        (diagnostics.large_eps, (0.5, 0.1), (0.5, 0.2)),
    ],
)
def test_each_check_turns_where_it_says(check, passes, fails):
    assert check(*passes).verdict == "passed" and not check(*passes).why
    assert check(*fails).verdict == "failed" and check(*fails).why and check(*fails).numbers


@pytest.mark.parametrize(
    ("standing", "left", "verdict"), [(0.6, 0.56, "passed"), (0.9, 0.83, "passed"), (0.6, 0.5, "failed")]
)
def test_something_weaker_must_not_break_many_more(standing, left, verdict):
    check = diagnostics.stronger("black_box", "Square", standing, left)
    assert check.verdict == verdict and check.numbers == {"standing": standing, "left": left}


def test_the_margin_finds_a_little_more_than_the_cross_entropy_on_honest_models():
    found = [diagnostics.stronger("more_steps", "PGD", 0.206, 0.149, other_loss=other) for other in (0, 1)]
    assert [check.verdict for check in found] == ["failed", "passed"]
    assert diagnostics.stronger("more_steps", "PGD", 0.4, 0.25, other_loss=True).verdict == "failed"


def test_failures_are_named_in_the_verdict_and_come_back_with_the_record():
    found = [diagnostics.large_eps(0.5, 0.3), diagnostics.twins([], 0)]
    checks = verdict_with({"zero_gradient_fraction": 0.0, "masking": "none seen"}, found)
    assert checks["masking"] == "suspected: large_eps: 30.0% of the images stand at eps 0.5"
    assert checks["diagnostics"]["twins"] == {"verdict": "passed", "tied_pairs": 0, "merged": 0}
    record = make_record(checks=checks)
    assert type(record).from_dict(record.to_dict()) == record
    more = verdict_with({"masking": "suspected: blind"}, found)
    assert more["masking"].startswith("suspected: blind; large_eps: ")
    assert verdict_with({"masking": "none seen"}, found[1:])["masking"] == "none seen"
