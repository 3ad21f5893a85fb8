"""Margin against depth: what the norms of each level of a tree allow, and what the trained model has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..evaluation.records import RobustnessRecord
from ..geometry import hyperbolic_margin
from .depth_table import depth_records, edges_sentence, images_sentence
from .figure_io import (
    BLUE,
    FAINT,
    INK,
    ORANGE,
    VERMILLION,
    clean_frame,
    drawn,
    new_figure,
    save_png,
)
from .tables import attack_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SERIES = {"clean": (BLUE, "o", 9, -1), "attacked": (VERMILLION, "s", 5.5, 1)}
"""Colour, mark, its size and side of the margins when clean and when attacked: one never hides the other."""


@drawn
def plot_depth(
    records: Sequence[RobustnessRecord],
    path: str | Path | None = None,
    *,
    title: str = "Margin against depth",
) -> Figure:
    """Margins of -kappa d at each level of a tree over the radius at which the level's texts lie.

    Left: Theorem 1's bound 2 kappa rho for texts of one radius rho, what K equiangular texts reach, and the
    median margins. Right: the margins alone, 10 to 90 % of the images around the median.

    Args:
        records: of which some tell depth; see `depth_records` for those that are drawn.
        path: where to write a PNG; None draws only.

    Raises:
        ValueError: no record tells depth.
        ImportError: matplotlib is missing.
    """
    chosen = depth_records(records)
    if not chosen:
        raise ValueError("no record tells depth: measure a model with a calibrated head and a tree.")
    first = chosen[0]
    attack = "clean images"
    if "attacked_margin" in first.depth:
        attack = f"attacked: {attack_label(first.attack)}, but for images wrong when clean"
    setting = (
        f"{first.model} on {first.dataset} ({first.split}), {first.num_samples} images; tree {first.tree}; "
        f"{attack}; space {first.attack['space']}; {edges_sentence(chosen)}"
    )
    if "image_depth" in first.depth:
        setting += f"; {images_sentence(first.depth)[0].lower()}{images_sentence(first.depth)[1:]}"
    figure = new_figure(11.0, 4.4, title, setting)
    allowed, measured = figure.subplots(1, 2)
    radii = np.array([_radius(record) for record in chosen])
    _draw_allowed(allowed, chosen, radii)
    _draw_measured(measured, chosen, radii)
    _draw_legend(figure, allowed, measured)
    for axes in (allowed, measured):
        axes.axhline(0, color=INK, linewidth=0.8, zorder=1)
        axes.set_ylabel("log-margin of −κd", fontsize=11)
        axes.grid(axis="y", color=FAINT, linewidth=0.8)
        clean_frame(axes)
    return save_png(figure, path)


def _radius(record: RobustnessRecord) -> float:
    """Distance to the centre of a text of the level's median norm, 2|v|."""
    return 2 * record.depth["tangent_norm"] / record.depth["curvature"] ** 0.5


def _margins(chosen: Sequence[RobustnessRecord], name: str) -> tuple[list[int], np.ndarray]:
    """Places of the records that have these margins, and their 10, 50 and 90 % (n, 3)."""
    places = [place for place, record in enumerate(chosen) if f"{name}_margin" in record.depth]
    return places, np.array([chosen[place].depth[f"{name}_margin"] for place in places]).reshape(-1, 3)


def _draw_allowed(axes: Axes, chosen: Sequence[RobustnessRecord], radii: np.ndarray) -> None:
    curvature, kappa = chosen[0].depth["curvature"], chosen[0].depth["kappa"]
    line, root = np.linspace(0, 1.12 * radii.max(), 60), curvature**0.5
    norms = torch.from_numpy(np.tanh(root * line / 2) / root)
    axes.plot(
        line,
        hyperbolic_margin(norms, curvature, kappa),
        color=INK,
        linewidth=1.6,
        label="bound of Theorem 1, 2κρ",
    )
    told = sorted((rho, r.depth["simplex"]) for rho, r in zip(radii, chosen) if "simplex" in r.depth)
    if told:
        label = "K equiangular texts at ρ"
        axes.plot(*zip(*told), "--D", color=ORANGE, markersize=6, linewidth=1.2, label=label)
    for name, (color, mark, size, _) in SERIES.items():
        places, margins = _margins(chosen, name)
        if places:
            axes.plot(
                radii[places], margins[:, 1], mark, color=color, markersize=size, label=f"median, {name}"
            )
    for rho in radii:
        axes.axvline(rho, color=FAINT, linewidth=0.8, zorder=0)
    axes.set_xlim(0, line[-1])
    axes.set_xlabel("hyperbolic radius ρ of a level's texts, median", fontsize=11)
    axes.set_title("what the norms allow", fontsize=11, loc="left")


def _draw_measured(axes: Axes, chosen: Sequence[RobustnessRecord], radii: np.ndarray) -> None:
    shown, width = _apart(radii)
    for name, (color, mark, size, side) in SERIES.items():
        places, margins = _margins(chosen, name)
        if not places:
            continue
        low, middle, high = margins.T
        axes.errorbar(
            shown[places] + 0.02 * width * side,
            middle,
            [middle - low, high - middle],
            fmt=mark,
            color=color,
            capsize=4,
            markersize=size,
            linewidth=1.6,
            label=f"{name}: median, 10 to 90 % of images",
        )
    labels = [
        f"{record.level_name}\nK = {record.depth['nodes']}\nρ {rho:.2f}" for record, rho in zip(chosen, radii)
    ]
    axes.set_xticks(shown, labels)
    middle = (shown.min() + shown.max()) / 2
    axes.set_xlim(middle - width / 2, middle + width / 2)
    moved = "" if np.allclose(shown, radii) else ", moved apart to be seen"
    axes.set_xlabel(f"levels over their radius{moved}", fontsize=11)
    axes.set_title("what the model has", fontsize=11, loc="left")


def _draw_legend(figure: Figure, allowed: Axes, measured: Axes) -> None:
    """One for both panels, whose margins have the same colours and marks."""
    lines = [line for line in allowed.lines if not line.get_label().startswith(("median", "_"))]
    handles = [*lines, *measured.containers]
    figure.legend(
        handles,
        [handle.get_label() for handle in handles],
        loc="outside lower center",
        ncols=len(handles),
        fontsize=9,
        frameon=False,
    )


def _apart(radii: np.ndarray) -> tuple[np.ndarray, float]:
    """Places on the page, at the radii unless their labels would overlap; and the width of the axis."""
    order = radii.argsort()
    share = min(0.2, 0.75 / max(len(radii) - 1, 1))
    least = share * max(float(np.ptp(radii)) / 0.75, 1e-3)
    if len(radii) > 1 and np.diff(radii[order]).min() < least:
        # Gaps that are too small grow to the least one of an axis that they are part of.
        gaps = np.diff(radii[order])
        for _ in range(50):
            gaps = np.maximum(gaps, share * gaps.sum() / 0.75)
        gaps = np.maximum(gaps, 1e-3)
        shown = np.empty_like(radii)
        shown[order] = radii.min() + np.concatenate([[0], gaps.cumsum()])
        return shown, float(gaps.sum()) / 0.75
    return radii, max(float(np.ptp(radii)) / 0.75, 0.1)
