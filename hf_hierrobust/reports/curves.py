"""How a training went: loss terms and, if it was evaluated in between, accuracy."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..naming import level_name
from .figure_io import (
    COLORS,
    FAINT,
    clean_frame,
    drawn,
    integer_steps,
    new_figure,
    save_png,
    say_start,
    shortened,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NO_TERMS = {
    "grad_norm",
    "learning_rate",
    "epoch",
    "step",
    "train_loss",
    "num_tokens",
    "num_input_tokens_seen",
}


@drawn
def plot_curves(
    log_history: Sequence[Mapping[str, Any]],
    path: str | Path | None = None,
    *,
    terms: Sequence[str] | None = None,
    setting: str = "",
    title: str = "Training",
) -> Figure:
    """Loss terms over steps and, if evaluated during training, clean and robust accuracy below them.

    Args:
        log_history: `trainer.state.log_history`, dicts with "step".
        terms: keys of the loss terms; None takes the loss and every term logged beside it. A loss of one term
            is drawn once, by the term's name.
        setting: model, data set, attack and space.

    Raises:
        ValueError: no row holds any of the terms.
        ImportError: matplotlib is missing.
    """
    train = [row for row in log_history if not any(key.startswith(("eval_", "train_")) for key in row)]
    named = terms is not None
    if terms is None:
        terms = [key for key in dict.fromkeys(key for row in train for key in row) if key not in _NO_TERMS]
    losses = {
        term: [(row["step"], row[term]) for row in train if _is_number(row.get(term))] for term in terms
    }
    losses = {term: curve for term, curve in losses.items() if curve}
    if not losses:
        raise ValueError(
            f"log_history holds none of the loss terms {list(terms)}; name them with terms=[...]."
        )
    if not named and "loss" in losses and len(losses) == 2:
        del losses["loss"]
    keys = dict.fromkeys(key for row in log_history for key in row if key.startswith("eval_"))
    scores = {
        key: [(row["step"], 100 * row[key]) for row in log_history if key in row]
        for key in keys
        if key.endswith("accuracy")
    }
    panels = [("loss", _named(losses, _words), None)]
    if scores:
        panels.append(("accuracy (%)", _named(scores, _score_name), "o"))
    figure = new_figure(7.2, 0.5 + 2.7 * len(panels), title, setting)
    grid = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    for axes, (ylabel, curves, marker) in zip(grid, panels):
        for index, (name, curve) in enumerate(curves.items()):
            steps, values = zip(*curve)
            dash, color = ("-", "--", ":")[index // len(COLORS) % 3], COLORS[index % len(COLORS)]
            if marker:  # accuracies: a colour a level, dashes where attacked, so that equal ones stay visible
                levels = list(dict.fromkeys(other.rpartition(",")[0] or other for other in curves))
                color = COLORS[levels.index(name.rpartition(",")[0] or name) % len(COLORS)]
                dash = "--" if name.endswith("robust") else "-"
            point = marker or ("o" if len(curve) == 1 else None)
            axes.plot(steps, values, dash, color=color, marker=point, label=name, linewidth=1.8, markersize=5)
        axes.set_ylabel(ylabel, fontsize=11)
        axes.grid(color=FAINT, linewidth=0.8)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=10, frameon=False)
        clean_frame(axes)
    if scores:
        top = max(value for curve in scores.values() for _, value in curve)
        grid[1].set_ylim(0, min(104, max(5.0, 1.15 * top)))
    say_start(grid[0])
    integer_steps(grid[-1])
    grid[-1].set_xlabel("optimiser step", fontsize=11)
    return save_png(figure, path)


def _named(curves: Mapping[str, list], name: Callable[[str], str]) -> dict[str, list]:
    """The curves by what the legend calls them, by their whole keys where that is the same."""
    shown = [name(key) for key in curves]
    return {(one if shown.count(one) == 1 else key): curves[key] for one, key in zip(shown, curves)}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _words(key: str) -> str:
    return shortened(key.replace("_", " "), 28)


def _score_name(key: str) -> str:
    """`eval_level1_robust_accuracy` as "superclass, robust"; other accuracies by their own words."""
    match = re.fullmatch(
        r"eval_(?:(?P<set>.+)_)??(?P<level>leaf|level(\d+)|superclass(?:_(\d+))?)_(?P<kind>\w+)_accuracy", key
    )
    if match is None:
        return _words(key.removeprefix("eval_"))
    level, digits = match["level"], re.search(r"\d+$", match["level"])
    number = 0 if level == "leaf" else int(digits.group()) if digits else 1
    return f"{match['set'] + ': ' if match['set'] else ''}{level_name(number)}, {match['kind']}"
