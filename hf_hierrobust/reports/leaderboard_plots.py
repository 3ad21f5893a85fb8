"""Figures of a leaderboard: accuracy against the budget at every level, and clean against robust accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .figure_io import (
    COLORS,
    FAINT,
    INK,
    clean_frame,
    drawn,
    new_figure,
    save_png,
    shortened,
)
from .labels import place_numbers
from .leaderboard import Leaderboard, Table, budget_text, row_names
from .protocols import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS, DASHES = ("o", "s", "^", "D", "v", "P"), ("-", "--", ":")
MAX_LINES = 12
"""Models whose line has a colour and a name; further ones are grey."""
NAME = 40


def figure_groups(board: Leaderboard) -> list[list[Table]]:
    """Tables that share a figure: those of one attack and norm at all levels, most common protocols only."""
    groups: dict[tuple, list[Table]] = {}
    for table in board.tables:
        if table.variant == 0 and table.cells:
            groups.setdefault((table.title, table.budgets[0][0]), []).append(table)
    return list(groups.values())


@drawn
def plot_budgets(tables: Sequence[Table], path: str | Path | None = None) -> Figure:
    """Accuracy against the budget, 0 being the clean images: one panel a level, one line a model.

    Shown are means over all data sets of a table. Of more than `MAX_LINES` models those that are most robust
    at the largest budget have names, the others are grey.

    Args:
        tables: of `figure_groups`.
        path: where to write a PNG; None draws only.

    Raises:
        ValueError: there are no tables.
        ImportError: matplotlib is missing.
    """
    if not tables:
        raise ValueError("tables is empty: there is nothing to plot")
    rows = list(dict.fromkeys(row for table in tables for row in table.ordered()))
    names, named = row_names(rows), rows[:MAX_LINES]
    hidden = len(rows) - len(named)
    extra = f"; {hidden} less robust models in grey" if hidden else ""
    height = max(2.5 * len(tables), 0.19 * len(named)) + 0.4
    figure = new_figure(7.6, height, "Accuracy by budget", _setting(tables) + extra)
    grid, key = _panels(figure, len(tables), 1, 4.8)
    for axes, table in zip(grid[:, 0], tables):
        for row in [*rows[MAX_LINES:], *named]:
            if row in table.cells:
                _line(axes, table, row, named.index(row) if row in named else None, names[row])
        axes.set_title(_level(table), fontsize=11, loc="left")
        axes.set_ylabel("accuracy (%)", fontsize=11)
        axes.set_ylim(bottom=0)
        axes.grid(color=FAINT, linewidth=0.8)
        clean_frame(axes)
    budgets = sorted({budget for table in tables for budget in table.budgets})
    grid[-1, 0].set_xticks([0, *(eps for _, eps in budgets)], ["clean", *map(budget_text, budgets)])
    grid[-1, 0].set_xlabel(f"budget ({budgets[0][0]})", fontsize=11)
    lines = {line.get_label(): line for axes in grid[:, 0] for line in axes.lines}
    shown = {names[row]: lines[names[row]] for row in named if names[row] in lines}
    labels = [shortened(_short(name), NAME) for name in shown]
    key.legend(shown.values(), labels, loc="upper left", fontsize=8, frameon=False, borderaxespad=0)
    return save_png(figure, path)


@drawn
def plot_clean_robust(tables: Sequence[Table], path: str | Path | None = None) -> Figure:
    """Clean against robust accuracy: one row of panels a level, one column a budget, one number a model.

    The step line joins the models that no other one beats in both. Shown are means over all data sets.

    Args:
        tables, path: see `plot_budgets`.

    Raises:
        ValueError: there are no tables.
        ImportError: matplotlib is missing.
    """
    if not tables:
        raise ValueError("tables is empty: there is nothing to plot")
    rows = list(dict.fromkeys(row for table in tables for row in table.ordered()))
    budgets = sorted({budget for table in tables for budget in table.budgets})
    objectives = list(dict.fromkeys(row.objective for row in rows))
    height = max(2.5 * len(tables), 0.165 * (len(rows) + len(objectives) + 1)) + 0.4
    width = 2.5 * max(len(budgets), 2)
    front = "; the line joins the models that no other one beats in both" if len(rows) > 1 else ""
    figure = new_figure(width + 2.8, height, "Clean and robust accuracy", _setting(tables) + front)
    grid, key = _panels(figure, len(tables), len(budgets), width)
    points = []
    for line, table in zip(grid, tables):
        for axes, budget in zip(line, budgets):
            points.append((axes, _points(axes, table, budget, rows, objectives)))
            axes.set_title(f"{_level(table)}, eps {budget_text(budget)}", fontsize=9, loc="left")
            axes.grid(color=FAINT, linewidth=0.8)
            clean_frame(axes)
            axes.tick_params(labelsize=9)
        line[0].set_ylabel("robust accuracy (%)", fontsize=10)
    for axes in grid[-1]:
        axes.set_xlabel("clean accuracy (%)", fontsize=10)
    _key(key, rows, objectives)
    for line in grid:
        _zoom(line[0], [point for axes, found in points if axes in line for point in found])
    figure.draw_without_rendering()  # labels find their places among the points where these finally are
    for axes, found in points:
        place_numbers(axes, found)
    return save_png(figure, path)


def _line(axes: Axes, table: Table, row: Row, place: int | None, name: str) -> None:
    means = [((0.0, table.clean(row)))] + [
        (eps, table.robust(row, (norm, eps))) for norm, eps in table.budgets
    ]
    found = [(x, 100 * mean.value, 100 * mean.half_width) for x, mean in means if mean is not None]
    if not found:
        return
    x, y, widths = zip(*found)
    if place is None:
        axes.plot(x, y, color="#BBBBBB", linewidth=0.8, label=f"_{name}", zorder=1)
        return
    style = {"color": COLORS[place % 6], "marker": MARKERS[place % 6], "linestyle": DASHES[place // 6 % 3]}
    axes.plot(x, y, label=name, linewidth=1.5, markersize=4.5, **style)
    if len(table.cells) <= 4:  # of more models the bands would hide the lines
        low, high = zip(*((v - w, v + w) for v, w in zip(y, widths)))
        axes.fill_between(x, low, high, color=COLORS[place % 6], alpha=0.15, linewidth=0)


def _panels(figure: Figure, lines: int, columns: int, width: float):
    """Axes (lines, columns) that share their x axis by line, and one without a frame at their right."""
    import numpy as np

    ratios = [width / columns] * columns + [figure.get_size_inches()[0] - width]
    places = figure.add_gridspec(lines, columns + 1, width_ratios=ratios)
    grid = np.empty((lines, columns), dtype=object)
    for line in range(lines):
        for column in range(columns):
            first = grid[line, 0] if column else None
            above = grid[0, 0] if columns == 1 and line else first
            grid[line, column] = figure.add_subplot(places[line, column], sharex=above, sharey=first)
            if columns == 1 and line < lines - 1:
                grid[line, column].tick_params(labelbottom=False)
    key = figure.add_subplot(places[:, -1])
    key.axis("off")
    return grid, key


def _points(axes: Axes, table: Table, budget, rows: Sequence[Row], objectives: Sequence[str]) -> list[tuple]:
    """Draw the points; their places and numbers."""
    found = []
    for number, row in enumerate(rows, 1):
        clean = table.clean(row) if row in table.cells else None
        robust = table.robust(row, budget) if row in table.cells else None
        if clean is not None and robust is not None:
            found.append((100 * clean.value, 100 * robust.value, number, row.objective))
    best = -1.0
    front = []
    for x, y, *_ in sorted(found, key=lambda point: (-point[0], -point[1])):
        if y > best:
            front.append((x, y))
            best = y
    if len(front) > 1:
        axes.plot(*zip(*front), color="#999999", linewidth=0.8, drawstyle="steps-pre", zorder=1)
    for x, y, _, objective in found:
        place = objectives.index(objective)
        axes.plot(x, y, MARKERS[place // 6 % 6], color=COLORS[place % 6], markersize=5, zorder=2)
    return [(x, y, number) for x, y, number, _ in found]


def _zoom(axes: Axes, points: Sequence[tuple]) -> None:
    """Limits around the points of a line of panels, which share their axes; not a lens on a single one."""
    for axis, values in (("x", [x for x, *_ in points]), ("y", [y for _, y, *_ in points])):
        if values:
            span = max(values) - min(values)
            pad = max(0.12 * span, 5 if span < 5 else 0)
            getattr(axes, f"set_{axis}lim")(max(-3, min(values) - pad), min(103, max(values) + pad))


def _key(axes: Axes, rows: Sequence[Row], objectives: Sequence[str]) -> None:
    """Numbers of the models and colours of the objectives, right of the panels."""
    from matplotlib.lines import Line2D

    names, empty = row_names(rows), {"linestyle": "none", "marker": "none"}
    handles, labels = [], []
    for place, objective in enumerate(objectives):
        style = {"marker": MARKERS[place // 6 % 6], "color": COLORS[place % 6], "linestyle": "none"}
        handles.append(Line2D([], [], markersize=8, **style))
        labels.append(shortened(objective, NAME))
    for number, row in enumerate(rows, 1):
        handles.append(Line2D([], [], color=INK, **empty))
        labels.append(f"{number}  {shortened(_short(names[row]), NAME)}")
    axes.legend(
        handles,
        labels,
        loc="upper left",
        borderaxespad=0,
        fontsize=7.5,
        frameon=False,
        handlelength=1.0,
        handletextpad=0.4,
        labelspacing=0.25,
    )


def _setting(tables: Sequence[Table]) -> str:
    """Attack, data sets and images in a line."""
    sets = list(dict.fromkeys(name for table in tables for name in table.sets))
    named = ", ".join(sets) if len(sets) <= 4 else f"{len(sets)} data sets"
    counts = sorted({p["images"] for table in tables for p in table.protocols.values()})
    images = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    spaces = sorted({p["space"] for table in tables for p in table.protocols.values()})
    mean = "means over " if len(sets) > 1 else ""
    each = " each" if len(sets) > 1 else ""
    return f"{tables[0].title}, space {' and '.join(spaces)}; {mean}{named}, {images} images{each}"


def _level(table: Table) -> str:
    return (
        table.level_name
        if table.level == 0 and table.kind == "prompts"
        else f"{table.level_name}, {table.kind}"
    )


def _short(name: str) -> str:
    """Without the namespace of a Hub id."""
    model, *more = name.split(", ")
    return ", ".join([model.rsplit("/", 1)[-1], *more])
