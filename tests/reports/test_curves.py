"""Training curves."""

from __future__ import annotations

import numpy as np
import pytest
from figure_checks import check_png, setting_of

pytest.importorskip("matplotlib", reason="figures need the extra 'plots'")

from hf_hierrobust.reports.curves import plot_curves

LOG = [
    {"step": 10, "loss": 3.0, "loss_hita": 2.5, "loss_gap": 0.5, "learning_rate": 1e-4, "grad_norm": 1.0},
    {"step": 10, "eval_leaf_clean_accuracy": 0.5, "eval_leaf_robust_accuracy": 0.1, "eval_loss": 9.0},
    {"step": 20, "loss": 2.0, "loss_hita": 1.8, "loss_gap": 0.2, "learning_rate": 5e-5, "grad_norm": 1.0},
    {
        "step": 20,
        "eval_leaf_clean_accuracy": 0.6,
        "eval_leaf_robust_accuracy": 0.3,
        "eval_b_level1_robust_accuracy": 0.2,
        "eval_loss": 8.0,
    },
    {"step": 20, "train_runtime": 5.0, "train_loss": 2.5},
]


def lines_of(axes) -> dict[str, tuple[list, list]]:
    return {
        line.get_label(): tuple(np.round(data, 6).tolist() for data in line.get_data()) for line in axes.lines
    }


def test_curves_separate_losses_from_scores(tmp_path):
    path = tmp_path / "curves.png"
    figure = plot_curves(LOG, path, setting="m on d; linf:4/255; space native")
    losses, scores = figure.axes
    assert setting_of(figure) == "m on d; linf:4/255; space native"
    assert lines_of(losses) == {
        "loss": ([10, 20], [3.0, 2.0]),
        "loss hita": ([10, 20], [2.5, 1.8]),
        "loss gap": ([10, 20], [0.5, 0.2]),
    }
    assert lines_of(scores) == {
        "leaf, clean": ([10, 20], [50.0, 60.0]),
        "leaf, robust": ([10, 20], [10.0, 30.0]),
        "b: superclass, robust": ([20], [20.0]),
    }
    assert (losses.get_ylabel(), scores.get_ylabel(), scores.get_xlabel()) == (
        "loss",
        "accuracy (%)",
        "optimiser step",
    )
    check_png(path)


def test_curves_without_evaluation_and_with_named_terms():
    (axes,) = plot_curves([row for row in LOG if "loss" in row], terms=["loss", "grad_norm"]).axes
    assert set(lines_of(axes)) == {"loss", "grad norm"}
    with pytest.raises(ValueError, match="none of the loss terms"):
        plot_curves(LOG, terms=["no_such_term"])


def test_kind33_a_single_term_is_drawn_once_on_whole_steps():
    log = [
        {"step": step, "loss": 3.0 + step, "tecoa": 3.0 + step, "learning_rate": 1.0} for step in (1, 2, 3)
    ]
    figure = plot_curves(log)
    (axes,) = figure.axes
    assert list(lines_of(axes)) == ["tecoa"]
    figure.draw_without_rendering()
    assert all(float(tick).is_integer() for tick in axes.get_xticks())


def test_kind33_an_axis_that_does_not_start_at_0_says_so():
    far = [{"step": step, "loss": 100.0 + step} for step in (1, 2, 3)]
    (axes,) = plot_curves(far).axes
    assert "axis starts at 101" in axes.get_ylabel()
    near = [{"step": step, "loss": float(step)} for step in (1, 2, 3)]
    (axes,) = plot_curves(near).axes
    assert axes.get_ylim()[0] <= 0.9 and ("starts" in axes.get_ylabel()) == (axes.get_ylim()[0] > 0)


def test_curves_of_one_short_name_are_both_drawn():
    terms = ["a_term_with_a_name_that_is_long_1", "a_term_with_a_name_that_is_long_2"]
    scores = ["eval_level1_clean_accuracy", "eval_superclass_clean_accuracy"]
    log = [{"step": 1, **dict.fromkeys(terms, 1.0)}, {"step": 1, **dict.fromkeys(scores, 0.5)}]
    losses, accuracies = plot_curves(log).axes
    assert list(lines_of(losses)) == terms and list(lines_of(accuracies)) == scores
