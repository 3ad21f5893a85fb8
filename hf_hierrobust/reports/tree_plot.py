"""A class tree as a drawing: the top at the left, one column a level, leaves at the right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .figure_io import BLUE, INK, VERMILLION, drawn, new_figure, save_png, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_ROWS = 130
"""Nodes that one column can hold legibly; lower levels of larger trees are counted, not drawn."""
ROW, COLUMN = 0.135, 2.3
"""Height of a row and width of a column, in inches."""


@drawn
def plot_tree(
    names: Sequence[Sequence[str]],
    parents: Sequence[Sequence[int]],
    path: str | Path | None = None,
    *,
    title: str = "Class tree",
    setting: str = "",
) -> Figure:
    """Nodes and edges of a tree; a class that is repeated at a level as padding has a dotted edge.

    Args:
        names: of the nodes of each level, leaves first.
        parents: ``parents[l][i]`` is the index at level l+1 of the parent of node i of level l.
        path: where to write a PNG; None draws only.

    Raises:
        ValueError: no level, or not one parent a node.
        ImportError: matplotlib is missing.
    """
    if not names or [len(level) for level in names[:-1]] != [len(row) for row in parents]:
        raise ValueError("names and parents must give every node below the top one parent")
    drawn_from = next((level for level, row in enumerate(names) if len(row) <= MAX_ROWS), len(names) - 1)
    order = _order(names, parents, drawn_from)
    rows = {node: row for row, node in enumerate(order[drawn_from])}
    place = {drawn_from: rows}
    for level in range(drawn_from + 1, len(names)):
        below = place[level - 1]
        gathered: dict[int, list[float]] = {}
        for child, row in below.items():
            gathered.setdefault(parents[level - 1][child], []).append(row)
        place[level] = {node: sum(found) / len(found) for node, found in gathered.items()}
    counts = ", ".join(str(len(level)) for level in reversed(names))
    hidden = "; lower levels are not drawn: in brackets, leaves below" if drawn_from else ""
    setting = "; ".join(filter(None, (setting, f"{counts} nodes from the top to the leaves{hidden}")))
    columns = len(names) - drawn_from
    figure = new_figure(0.2 + COLUMN * (columns - 0.1), 0.3 + ROW * max(len(rows), 3), title, setting)
    axes = figure.subplots()
    inside = _sizes(names, parents, drawn_from)
    for level in range(drawn_from, len(names)):
        x = len(names) - 1 - level
        for node, y in place[level].items():
            count = f" ({inside[node]})" if level == drawn_from and drawn_from else ""
            text = shortened(names[level][node], 28) + count
            lowest = level == drawn_from  # the lowest names stand left of nothing, the others end at an edge
            style = {"ha": "left", "color": BLUE} if lowest else {"ha": "right", "color": INK}
            axes.text(x if lowest else x + 0.72, y, text, fontsize=7, va="center", **style)
            if level + 1 < len(names):
                parent = parents[level][node]
                loop = names[level][node] == names[level + 1][parent]
                style = {"linestyle": ":" if loop else "-", "color": VERMILLION if loop else "#999999"}
                end = x - 0.03 if lowest else x + 0.7 - min(0.7, 0.026 * len(text))
                axes.plot([x - 0.26, end], [place[level + 1][parent], y], linewidth=0.6, **style)
    top = max((len(shortened(name, 28)) for name in names[-1]), default=1) if columns > 1 else 28
    axes.set(xlim=(0.68 - 0.026 * top, columns - 0.2), ylim=(len(rows) - 0.4, -0.6))
    axes.axis("off")
    return save_png(figure, path)


def _order(names, parents, drawn_from: int) -> dict[int, list[int]]:
    """Nodes of each level so that children of one node are neighbours, from the top down."""
    order = {len(names) - 1: list(range(len(names[-1])))}
    for level in range(len(names) - 2, drawn_from - 1, -1):
        place = {node: row for row, node in enumerate(order[level + 1])}
        order[level] = sorted(range(len(names[level])), key=lambda node: (place[parents[level][node]], node))
    return order


def _sizes(names, parents, level: int) -> dict[int, int]:
    """Leaves below each node of a level."""
    above = list(range(len(names[0])))
    for row in parents[:level]:
        above = [row[node] for node in above]
    return {node: above.count(node) for node in range(len(names[level]))}
