"""Numbers beside points, each where it hides neither a point nor another number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .figure_io import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = 7
"""Points (1/72 inch) of the font."""


def place_numbers(axes: Axes, points: Sequence[tuple[float, float, int]]) -> None:
    """Write a number beside each point, with a thin line to it where it had to go further away.

    Args:
        axes: in its final place and limits.
        points: x, y and number of each.
    """
    scale = axes.figure.dpi / 72
    dots = [tuple(axes.transData.transform((x, y))) for x, y, _ in points]
    box = axes.get_window_extent()
    taken: list[tuple[float, float, float, float]] = []
    for (x, y, number), (px, py) in sorted(zip(points, dots), key=lambda found: found[1]):
        width, height = (0.65 * SIZE * len(str(number)) + 1) * scale, SIZE * scale
        best = None
        for distance in (8, 14, 21, 29, 38):
            for turn in range(12):
                angle = math.pi / 6 * turn + math.pi / 4
                cx, cy = px + distance * scale * math.cos(angle), py + distance * scale * math.sin(angle)
                rect = (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
                hidden = sum(_inside(dot, rect, 3 * scale) for dot in dots)
                crossed = sum(_overlap(rect, other) for other in taken)
                outside = not (
                    box.x0 < rect[0] and rect[2] < box.x1 and box.y0 < rect[1] and rect[3] < box.y1
                )
                cost = 4 * crossed + 3 * hidden + 4 * outside + distance / 40
                if best is None or cost < best[0]:
                    best = cost, cx, cy, rect, distance
            if best[0] < 1:
                break
        _, cx, cy, rect, distance = best
        taken.append(rect)
        axes.annotate(
            str(number),
            (x, y),
            ((cx - px) / scale, (cy - py) / scale),
            textcoords="offset points",
            fontsize=SIZE,
            ha="center",
            va="center",
            color=INK,
            zorder=4,
            arrowprops={"arrowstyle": "-", "color": "#888888", "linewidth": 0.5, "shrinkA": 1, "shrinkB": 2}
            if distance > 8
            else None,
        )


def _inside(dot: tuple[float, float], rect: tuple, pad: float) -> bool:
    return rect[0] - pad < dot[0] < rect[2] + pad and rect[1] - pad < dot[1] < rect[3] + pad


def _overlap(one: tuple, other: tuple) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
