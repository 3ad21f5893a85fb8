"""Figures of records, embeddings, adversarial examples and training curves.

Every function returns a `matplotlib.figure.Figure` that pyplot does not know about (no window, no global
state, no display needed) and writes a PNG of at most `MAX_PNG_BYTES` when given a path.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..evaluation.records import RobustnessRecord
from .ball import plot_ball
from .figure_io import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    MAX_PNG_BYTES,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    clean_frame,
    new_figure,
    save_png,
)
from .tables import attack_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["MAX_PNG_BYTES", "plot_ball", "plot_before_after", "plot_curves", "plot_examples"]

# Darker than the palette's green and vermillion, to be read as text on white.
RIGHT, WRONG = "#00785A", "#C04A00"


def plot_before_after(
    records: Sequence[RobustnessRecord | Mapping[str, Any]],
    path: str | Path | None = None,
    *,
    title: str = "Clean and robust accuracy",
) -> Figure:
    """Grouped bars per record: clean and robust, before (its `base`) and after, with 95 % intervals.

    Args:
        records: records or their `to_dict`; without any `base` only the two "after" bars are drawn.
        path: where to write a PNG; None draws only.

    Raises:
        ValueError: `records` is empty.
        ImportError: matplotlib is missing.
    """
    rows = [r.to_dict() if isinstance(r, RobustnessRecord) else r for r in records]
    if not rows:
        raise ValueError("records is empty; there is nothing to plot.")
    series = [("clean, after", None, "clean", BLUE), ("robust, after", None, "robust", VERMILLION)]
    if any(row.get("base") for row in rows):
        before = [("clean, before", "base", "clean", SKY), ("robust, before", "base", "robust", ORANGE)]
        series = [before[0], series[0], before[1], series[1]]
    figure = new_figure(max(7.2, 1.6 + 0.56 * len(series) * len(rows)), 4.6)
    axes = figure.subplots()
    width = 0.8 / len(series)
    for offset, (label, source, kind, color) in enumerate(series):
        measured = [(i, row[source] if source else row) for i, row in enumerate(rows)]
        bars = [(i + (offset + 0.5) * width - 0.4, entries) for i, entries in measured if entries]
        _draw_bars(axes, bars, kind, 0.94 * width, label=label, color=color, hatch="//" if source else None)
    for i, row in enumerate(rows):
        chance = 100 / row["num_classes"]
        axes.hlines(chance, i - 0.42, i + 0.42, colors=INK, linestyles=":", label="" if i else "chance")
    axes.set_xticks(range(len(rows)), _group_labels(rows), fontsize=10)
    axes.set(ylim=(0, 108), yticks=range(0, 101, 20))
    axes.set_ylabel("accuracy (%)", fontsize=11)
    axes.set_title(title, fontsize=13, fontweight="bold", loc="left", pad=22)
    axes.text(0, 1.02, _shared_setting(rows), transform=axes.transAxes, fontsize=9, color="#444444")
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    legend = sorted(zip(*axes.get_legend_handles_labels()), key=lambda entry: entry[1] == "chance")
    columns = len(legend) if len(rows) > 2 else 3
    figure.legend(*zip(*legend), loc="outside lower center", ncols=columns, fontsize=10, frameon=False)
    clean_frame(axes)
    return save_png(figure, path)


def plot_examples(
    pixels: Tensor,
    adversarial: Tensor,
    clean_predictions: Sequence[str],
    adversarial_predictions: Sequence[str],
    true_names: Sequence[str],
    path: str | Path | None = None,
    *,
    amplify: float | None = None,
    max_columns: int = 6,
    title: str = "Adversarial examples",
) -> Figure:
    """Three rows: image, amplified perturbation around mid-grey, adversarial image, with predictions below.

    Args:
        pixels, adversarial: `(B, 3, H, W)` in [0, 1]; the first `max_columns` are shown.
        clean_predictions, adversarial_predictions, true_names: B class names.
        amplify: factor of the perturbation; None takes the largest whole one that does not clip.

    Raises:
        ValueError: shapes differ, pixels outside [0, 1], or a list of names of another length.
        ImportError: matplotlib is missing.
    """
    if pixels.shape != adversarial.shape or pixels.ndim != 4 or pixels.shape[1] != 3 or len(pixels) == 0:
        raise ValueError(
            f"pixels {tuple(pixels.shape)} and adversarial {tuple(adversarial.shape)} must both be "
            "(B, 3, H, W) with B >= 1."
        )
    for name, images in (("pixels", pixels), ("adversarial", adversarial)):
        if images.min() < -1e-6 or images.max() > 1 + 1e-6:
            raise ValueError(f"{name} must be in [0, 1]; pass pixels before the processor's normalisation.")
    for names in (clean_predictions, adversarial_predictions, true_names):
        if len(names) != len(pixels):
            raise ValueError(
                f"{len(pixels)} images but {len(names)} names in one of the three lists of names."
            )
    columns = min(len(pixels), max_columns)
    clean, attacked = (
        t[:columns].detach().float().cpu().clamp(0, 1).permute(0, 2, 3, 1).numpy()
        for t in (pixels, adversarial)
    )
    delta = attacked - clean
    largest = float(np.abs(delta).max())
    if amplify is None:
        amplify = max(1.0, math.floor(0.5 / largest + 1e-3)) if largest else 1.0
    noise = np.clip(0.5 + amplify * delta, 0, 1)

    figure = new_figure(0.7 + 1.5 * columns, 6.0)
    grid = figure.subplots(3, columns, squeeze=False)
    row_labels = ("clean", f"perturbation × {amplify:g}", "adversarial")
    for row, (label, shown) in enumerate(zip(row_labels, (clean, noise, attacked))):
        grid[row, 0].set_ylabel(label, fontsize=11)
        for column in range(columns):
            axes = grid[row, column]
            axes.imshow(shown[column], vmin=0, vmax=1, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
    for column in range(columns):
        true = true_names[column]
        grid[0, column].set_title(_wrapped(true), fontsize=10)
        for row, predictions in ((0, clean_predictions), (2, adversarial_predictions)):
            right = predictions[column] == true
            text = f"{'✓' if right else '✗'} {_wrapped(predictions[column])}"
            grid[row, column].set_xlabel(text, fontsize=10, color=RIGHT if right else WRONG)
    figure.suptitle(f"{title} (max |δ| = {255 * largest:.3g}/255)", fontsize=13, fontweight="bold")
    return save_png(figure, path)


def plot_curves(
    log_history: Sequence[Mapping[str, Any]],
    path: str | Path | None = None,
    *,
    terms: Sequence[str] | None = None,
    title: str = "Training",
) -> Figure:
    """Loss terms over steps and, if evaluated during training, clean and robust accuracy below them.

    Args:
        log_history: `trainer.state.log_history`, dicts with "step".
        terms: keys of the loss terms; None takes "loss" and every key starting with "loss_" or "loss/".

    Raises:
        ValueError: no row holds any of the terms.
        ImportError: matplotlib is missing.
    """
    train = [row for row in log_history if not any(key.startswith("eval_") for key in row)]
    if terms is None:
        keys = dict.fromkeys(key for row in train for key in row)
        terms = [key for key in keys if key == "loss" or key.startswith(("loss_", "loss/"))]
    losses = {term: [(row["step"], row[term]) for row in train if term in row] for term in terms}
    losses = {term: curve for term, curve in losses.items() if curve}
    if not losses:
        raise ValueError(
            f"log_history holds none of the loss terms {list(terms)}; name them with terms=[...]."
        )
    keys = dict.fromkeys(key for row in log_history for key in row if key.startswith("eval_"))
    scores = {
        key.removeprefix("eval_"): [(row["step"], 100 * row[key]) for row in log_history if key in row]
        for key in keys
        if "accuracy" in key
    }
    panels = [("loss", losses, (BLUE, ORANGE, GREEN, PURPLE, VERMILLION, SKY), None)]
    if scores:
        panels.append(("accuracy (%)", scores, (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY), "o"))
    figure = new_figure(7.2, 1.2 + 2.7 * len(panels))
    grid = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    for axes, (ylabel, curves, colors, marker) in zip(grid, panels):
        for index, (name, curve) in enumerate(curves.items()):
            steps, values = zip(*curve)
            dash = ("-", "--", ":")[index // len(colors) % 3]
            color = colors[index % len(colors)]
            axes.plot(
                steps, values, dash, color=color, marker=marker, label=name.replace("_", " "), linewidth=1.8
            )
        axes.set_ylabel(ylabel, fontsize=11)
        axes.grid(color=FAINT, linewidth=0.8)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=10, frameon=False)
        clean_frame(axes)
    if scores:
        grid[1].set_ylim(0, max(5.0, 1.15 * max(value for curve in scores.values() for _, value in curve)))
    grid[-1].set_xlabel("optimiser step", fontsize=11)
    grid[0].set_title(title, fontsize=13, fontweight="bold", loc="left")
    return save_png(figure, path)


def _draw_bars(axes: Axes, bars: Sequence[tuple[float, Mapping]], kind: str, width: float, **style) -> None:
    """Bars at (x, record or base) pairs, in percent, with their intervals and their values above these."""
    x = [position for position, _ in bars]
    values = 100 * np.array([entries[f"{kind}_accuracy"] for _, entries in bars])
    bounds = 100 * np.array([entries["intervals"][kind] for _, entries in bars]).T
    errors = {"yerr": np.abs(bounds - values), "ecolor": INK, "capsize": 3}
    axes.bar(x, values, width, edgecolor="white", **errors, **style)
    # The backing keeps a value readable where the chance line runs through it.
    text = {"ha": "center", "va": "bottom", "fontsize": 9, "zorder": 5}
    backing = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    for position, value, high in zip(x, values, bounds[1]):
        axes.text(position, high + 1.2, f"{value:.1f}", bbox=backing, **text)


def _group_labels(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Level and classifier of each record, and whatever else tells the records apart."""
    labels = [[str(row["level_name"]), str(row["classifier"])] for row in rows]
    for key in ("dataset", "objective", "model"):
        if len({row[key] for row in rows}) > 1:
            for label, row in zip(labels, rows):
                label.append(_shortened(row[key].rsplit("/", 1)[-1], 22))
    return ["\n".join(label) for label in labels]


def _shared_setting(rows: Sequence[Mapping[str, Any]]) -> str:
    """Attack and number of images in one line; those that differ between the records are left out."""
    attacks = {attack_label(row["attack"]) for row in rows}
    counts = {row["num_samples"] for row in rows}
    parts = [f"attack: {attacks.pop()}" if len(attacks) == 1 else "several attacks"]
    parts += [f"{counts.pop()} images"] if len(counts) == 1 else []
    return "; ".join([*parts, "bars with 95 % Wilson intervals"])


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def _wrapped(name: str) -> str:
    return textwrap.fill(_shortened(name, 32), 16)
