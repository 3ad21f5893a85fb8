"""Clean and robust accuracy before and after training: one panel a level, horizontal bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..evaluation.records import RobustnessRecord
from .figure_io import (
    BLUE,
    FAINT,
    INK,
    ORANGE,
    SKY,
    VERMILLION,
    clean_frame,
    drawn,
    new_figure,
    save_png,
    shortened,
)
from .tables import attack_label, attack_short, borrowed_base, scored_by

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_GROUPS = 16
BAR, GAP = 0.15, 0.16
"""Height of a bar and of the room between two groups of bars, in inches."""


@drawn
def plot_before_after(
    records: Sequence[RobustnessRecord | Mapping[str, Any]],
    path: str | Path | None = None,
    *,
    title: str = "Clean and robust accuracy",
) -> Figure:
    """Bars per record: clean and robust, before (its `base`) and after, with 95 % intervals.

    One panel a level, leaves first. Of more than `MAX_GROUPS` records the first are drawn and the others
    counted in the title.

    Args:
        records: records or their `to_dict`; without any `base` only the two "after" bars are drawn.
        path: where to write a PNG; None draws only.

    Raises:
        ValueError: `records` is empty.
        ImportError: matplotlib is missing.
    """
    rows = [r.to_dict() if isinstance(r, RobustnessRecord) else dict(r) for r in records]
    if not rows:
        raise ValueError("records is empty; there is nothing to plot.")
    left_out, rows = max(0, len(rows) - MAX_GROUPS), rows[:MAX_GROUPS]
    series = [("clean, after", None, "clean", BLUE), ("robust, after", None, "robust", VERMILLION)]
    if any(row.get("base") for row in rows):
        before = [("clean, before", "base", "clean", SKY), ("robust, before", "base", "robust", ORANGE)]
        series = [before[0], series[0], before[1], series[1]]
    names = _group_names(rows)
    levels: dict[tuple[int, str], list[int]] = {}
    for index, row in enumerate(rows):
        levels.setdefault((row["level"], row["level_name"]), []).append(index)
    panels = [levels[key] for key in sorted(levels)]
    group = len(series) * BAR + GAP
    heights = [group * len(panel) for panel in panels]
    extra = f"; {left_out} more records in results.json" if left_out else ""
    height = sum(heights) + 0.32 * len(panels) + 0.85
    figure = new_figure(7.2, height, title, setting_of(rows) + "; 95% Wilson intervals" + extra)
    grid = figure.subplots(len(panels), squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for axes, panel in zip(grid, panels):
        _draw_level(axes, [rows[i] for i in panel], series, group)
        axes.set_yticks(range(len(panel)), [names[i] for i in panel], fontsize=10)
        row = rows[panel[0]]
        axes.set_title(
            f"{shortened(row['level_name'])}, {row['num_classes']} classes", fontsize=11, loc="left"
        )
    grid[-1].set_xlabel("accuracy (%)", fontsize=11)
    handles, labels = grid[0].get_legend_handles_labels()
    legend = dict(zip(labels, handles))
    ordered = {name: legend[name] for name, *_ in series} | {"chance": legend["chance"]}
    figure.legend(
        ordered.values(),
        ordered,
        loc="outside lower center",
        ncols=5,
        fontsize=9,
        frameon=False,
        columnspacing=1.2,
    )
    return save_png(figure, path)


def setting_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Model, data set, attack and space of some records in a line; what differs is called several."""

    def common(what: str, values: Sequence[object]) -> str:
        distinct = list(dict.fromkeys(values))
        return str(distinct[0]) if len(distinct) == 1 else f"several {what}"

    counts = [f"{row['num_samples']} images" for row in rows]
    data = [f"{row['dataset']} ({row['split']})" for row in rows]
    attack = common("attacks", [attack_label(row["attack"]) for row in rows])
    space = common("spaces", [f"space {row['attack']['space']}" for row in rows])
    model = common("models", [row["model"] for row in rows])
    return f"{model} on {common('data sets', data)}, {common('numbers of images', counts)}; {attack}; {space}"


def _draw_level(axes: Axes, rows: Sequence[Mapping], series: Sequence[tuple], group: float) -> None:
    width = BAR / group
    top = -len(series) * width / 2
    for offset, (label, source, kind, color) in enumerate(series):
        shown = [(i, row.get(source) if source else row, row) for i, row in enumerate(rows)]
        shown = [(i + top + (offset + 0.5) * width, entries, row) for i, entries, row in shown if entries]
        y = [position for position, *_ in shown]
        values = 100 * np.array([entries[f"{kind}_accuracy"] for _, entries, _ in shown])
        bounds = 100 * np.array([entries["intervals"][kind] for _, entries, _ in shown]).reshape(-1, 2).T
        style = {"color": color, "edgecolor": "white", "hatch": "////" if source else None, "label": label}
        errors = {
            "xerr": np.abs(bounds - values),
            "error_kw": {"ecolor": INK, "capsize": 2, "elinewidth": 0.9},
        }
        axes.barh(y, values, 0.92 * width, **style, **(errors if len(y) else {}))
        for position, value, high, (_, _, row) in zip(y, values, bounds[1], shown):
            # A base without this classifier lends its own one, which the bar must say.
            other = borrowed_base(row) if source else None
            said = f"{value:.1f}" + (f" by {other}" if other else "")
            backing = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}
            axes.text(high + 1, position, said, va="center", fontsize=8, zorder=5, bbox=backing)
    for i, row in enumerate(rows):
        chance = 100 / row["num_classes"]
        axes.vlines(
            chance, i + top, i - top, colors=INK, linestyles=":", linewidth=1.2, label="chance", zorder=4
        )
    axes.set(xlim=(0, 112), xticks=range(0, 101, 20), ylim=(len(rows) - 0.5, -0.5))
    axes.grid(axis="x", color=FAINT, linewidth=0.8)
    axes.tick_params(axis="y", length=0)
    clean_frame(axes)


def _group_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Classifier of each record, and whatever else tells the records apart."""
    lines = [[scored_by(row)] for row in rows]
    for key in ("dataset", "objective", "model"):
        if len({row[key] for row in rows}) > 1:
            for line, row in zip(lines, rows):
                line.append(str(row[key]).rsplit("/", 1)[-1])
    if len({attack_label(row["attack"]) for row in rows}) > 1:
        for line, row in zip(lines, rows):
            line.append(attack_short(row["attack"]))
    return ["\n".join(shortened(part, 24) for part in line) for line in lines]
