"""Names beside the points of a disk, as many as find room."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .figure_io import INK, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def place_labels(axes: Axes, points: np.ndarray, levels: np.ndarray, names: Sequence[str]) -> None:
    """Write names beside their points, general levels first, and leave out those that find no free room.

    Args:
        points: complex numbers (N,) in data coordinates; the layout of the figure must be settled.
        levels: level (N,) of each point.
    """
    from matplotlib.patheffects import withStroke
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    renderer, points_per_pixel = axes.figure.canvas.get_renderer(), 72 / axes.figure.dpi
    frame = axes.get_window_extent(renderer)
    pixels = axes.transData.transform(np.column_stack([points.real, points.imag]))
    reach = np.where(levels > 0, 4.5, 2.5)[:, None] / points_per_pixel
    markers = [Bbox(corners) for corners in np.stack([pixels - reach, pixels + reach], axis=1)]
    placed = []
    for index in sorted(range(len(points)), key=lambda i: -levels[i]):
        upper = levels[index] > 0
        label = axes.annotate(
            shortened(names[index], 28),
            (points[index].real, points[index].imag),
            (0, 0),
            textcoords="offset points",
            fontsize=9 if upper else 8,
            fontweight="bold" if upper else "normal",
            color=INK,
            ha="center",
            va="center",
            zorder=20,
            arrowprops={"arrowstyle": "-", "color": "#777777", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3},
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )
        extent = label.get_window_extent(renderer)
        half_width, half_height = extent.width * points_per_pixel / 2, extent.height * points_per_pixel / 2
        # The most general nodes lie innermost, so the free room is towards the centre; for others outside.
        start = np.angle(points[index]) + (np.pi if levels[index] == levels.max() > 0 else 0)
        obstacles = placed + [box for box, level in zip(markers, levels) if level >= min(levels[index], 1)]
        distances = (5, 16, 30) if upper else (4,)
        for distance, turn in itertools.product(distances, (0, 0.5, -0.5, 1, -1, 1.6, -1.6, 2.4, -2.4)):
            x, y = np.cos(start + turn), np.sin(start + turn)
            label.set_position(((half_width + distance) * x, (half_height + distance) * y))
            box = Text.get_window_extent(label, renderer)
            inside = all(frame.contains(*corner) for corner in (box.min, box.max))
            if inside and not any(map(box.overlaps, obstacles)):
                placed.append(box)
                break
        else:
            label.remove()
