"""What an attack costs each class: clean and robust accuracy by class, in the order of the tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .figure_io import BLUE, FAINT, INK, VERMILLION, clean_frame, drawn, new_figure, save_png, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_ROWS = 130
"""Lines of the figure; more classes are gathered into their superclasses, or the worst are shown."""
ROW = 0.135
"""Height of a line in inches."""


@drawn
def plot_class_drop(
    classes: Mapping[str, Sequence],
    ancestors: Sequence[Sequence[str]] = (),
    path: str | Path | None = None,
    *,
    title: str = "Accuracy by class, clean and attacked",
    setting: str = "",
) -> Figure:
    """One line a class from its clean to its robust accuracy; classes of a superclass stand together.

    Superclasses stand in the order of what they lose, the worst first, and so do their classes. In place of
    more than `MAX_ROWS` classes their superclasses are shown, or without a tree those that lose most.

    Args:
        classes: of a record: ``names``, ``images``, ``clean`` and ``robust``, K each. Classes without images
            are left out.
        ancestors: names of the superclass of each class, K a level of the tree, the lowest first.

    Raises:
        ValueError: no class has images, or a level has not one name a class.
        ImportError: matplotlib is missing.
    """
    if any(len(level) != len(classes["names"]) for level in ancestors):
        raise ValueError(f"ancestors must name {len(classes['names'])} superclasses a level, one a class")
    rows = list(zip(*(classes[key] for key in ("names", "images", "clean", "robust"))))
    seen = [index for index, row in enumerate(rows) if row[1]]
    if not seen:
        raise ValueError("no class has any images: there is nothing to plot")
    said, levels = [], [[row[0] for row in rows], *ancestors]
    few = [level for level, names in enumerate(levels) if len({names[i] for i in seen}) <= MAX_ROWS]
    shown = few[0] if few else len(levels) - 1
    if shown == 0:
        placed = [(rows[i], ancestors[0][i] if ancestors else "") for i in seen]
    else:
        above = levels[shown + 1] if shown + 1 < len(levels) else [""] * len(rows)
        group = {levels[shown][i]: above[i] for i in seen}
        gathered = _gathered([(rows[i], levels[shown][i]) for i in seen])
        placed = [(row, group[row[0]]) for row in gathered]
        said.append(f"{len(gathered)} superclasses in place of {len(seen)} classes")
    placed = _sorted(placed)
    if len(placed) > MAX_ROWS:
        said.append(f"the {MAX_ROWS} of {len(placed)} that lose most")
        placed = placed[:MAX_ROWS]
    without = sum(1 for row in rows if not row[1])
    said += [f"{without} classes without images left out"] if without else []
    figure = new_figure(
        7.2, ROW * max(len(placed), 6) + 0.9, title, "; ".join(filter(None, (setting, *said)))
    )
    axes = figure.subplots()
    for y, ((_, images, clean, robust), _group) in enumerate(placed):
        axes.plot(
            [100 * robust / images, 100 * clean / images], [y, y], color="#AAAAAA", linewidth=1.2, zorder=1
        )
    for key, color, marker in ((2, BLUE, "o"), (3, VERMILLION, "D")):
        x = [100 * row[key] / row[1] for row, _ in placed]
        name = ("clean", "attacked")[key - 2]
        axes.plot(
            x, range(len(placed)), marker, color=color, markersize=4, linestyle="none", label=name, zorder=2
        )
    names = [f"{shortened(row[0], 26)} ({row[1]})" for row, _ in placed]
    axes.set_yticks(range(len(placed)), names, fontsize=7)
    _bands(axes, [group for _, group in placed])
    axes.set(xlim=(-2, 102), ylim=(len(placed) - 0.5, -0.5))
    axes.set_xlabel("accuracy (%); in brackets the number of images", fontsize=10)
    axes.grid(axis="x", color=FAINT, linewidth=0.8)
    clean_frame(axes)
    axes.tick_params(axis="y", labelsize=7, length=0)
    figure.legend(loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    return save_png(figure, path)


def _drop(row: Sequence) -> float:
    return (row[2] - row[3]) / row[1]


def _gathered(placed: Sequence[tuple]) -> list[tuple]:
    """The superclasses as if each was one class."""
    sums: dict[str, list[int]] = {}
    for (_, *counts), group in placed:
        sums[group] = [a + b for a, b in zip(sums.get(group, [0, 0, 0]), counts)]
    return [(group, *counts) for group, counts in sums.items()]


def _sorted(placed: Sequence[tuple]) -> list[tuple]:
    """Superclasses by what they lose as a whole, the classes of each likewise."""
    whole = {group: _drop((group, *counts)) for group, *counts in _gathered(placed)}
    return sorted(placed, key=lambda one: (-whole[one[1]], one[1], -_drop(one[0]), one[0][0]))


def _bands(axes, groups: Sequence[str]) -> None:
    """The name of each superclass at the right of its classes, every second one shaded."""
    start = 0
    for number, end in enumerate(
        [i for i in range(1, len(groups) + 1) if groups[i : i + 1] != [groups[i - 1]]]
    ):
        name = groups[start]
        if name:
            if number % 2 == 0:
                axes.axhspan(start - 0.5, end - 0.5, color="#F3F3F3", zorder=0, linewidth=0)
            middle = (start + end - 1) / 2
            axes.annotate(
                shortened(name, 34),
                (1.01, middle),
                xycoords=("axes fraction", "data"),
                fontsize=7,
                va="center",
                color=INK,
            )
        start = end
