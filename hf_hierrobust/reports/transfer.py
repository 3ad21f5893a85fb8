"""Heat map of transfer between the levels of a tree: crafted at one level, judged at another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..evaluation.records import RobustnessRecord
from ..naming import level_name
from .bars import setting_of
from .figure_io import INK, drawn, new_figure, save_png_and_svg, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def transfer_matrices(records: Sequence[RobustnessRecord]) -> dict[str, np.ndarray]:
    """For each classifier the transfer rates (L + 1, L + 1), NaN where there is no record.

    Args:
        records: of one model, data set and attack; those that are no transfer are left out.

    Returns:
        By the classifier's name, rows the level attacked, columns the level judged.

    Raises:
        ValueError: two records of the same entry.
    """
    found: dict[str, dict[tuple[int, int], float]] = {}
    for record in records:
        if record.crafted_level is None:
            continue
        entry, rates = (record.crafted_level, record.judged_level), found.setdefault(record.classifier, {})
        if entry in rates:
            raise ValueError(
                f"two records of {record.classifier!r} crafted at {level_name(entry[0])} and judged at "
                f"{level_name(entry[1])}: give those of one model, data set and attack"
            )
        rates[entry] = np.nan if record.transfer_rate is None else record.transfer_rate
    size = 1 + max((max(entry) for rates in found.values() for entry in rates), default=-1)
    matrices = {}
    for name, rates in found.items():
        matrices[name] = np.full((size, size), np.nan)
        for entry, rate in rates.items():
            matrices[name][entry] = rate
    return matrices


@drawn
def plot_transfer(
    records: Sequence[RobustnessRecord],
    stem: str | Path | None = None,
    *,
    title: str = "Transfer between levels",
) -> Figure:
    """One heat map a classifier, rows the level attacked and columns the level judged.

    Args:
        records: see `transfer_matrices`.
        stem: where to write ``stem.png`` and ``stem.svg``; None draws only.

    Raises:
        ValueError: no record of a transfer, or two of one entry.
        ImportError: matplotlib is missing.
    """
    matrices = transfer_matrices(records)
    if not matrices:
        raise ValueError("records holds no transfer between levels: evaluate with transfer=True")
    size = len(next(iter(matrices.values())))
    names = [level_name(level) for level in range(size)]
    shown = [record.to_dict() for record in records if record.crafted_level is not None]
    side = 0.75 * size + 1.1
    figure = new_figure(
        max(5.5, side * len(matrices) + 0.8),
        side + 0.7,
        title,
        f"{setting_of(shown)}; of the images right at the judged level when clean, the percentage that is "
        "wrong there on the adversarial image",
    )
    panels = figure.subplots(1, len(matrices), squeeze=False)[0]
    for axes, (name, matrix) in zip(panels, matrices.items()):
        # Cividis reads the same under the common colour blindnesses, and in grey.
        image = axes.imshow(100 * matrix, cmap="cividis", vmin=0, vmax=100)
        for (row, column), rate in np.ndenumerate(matrix):
            said = "–" if np.isnan(rate) else f"{100 * rate:.1f}"
            colour = "white" if rate < 0.5 else INK
            axes.text(column, row, said, ha="center", va="center", fontsize=10, color=colour)
        axes.set_title(shortened(name), fontsize=11)
        axes.set_xticks(range(size), names, fontsize=9, rotation=25 if size > 2 else 0)
        axes.set_yticks(range(size), names, fontsize=9)
        axes.set_xlabel("judged at", fontsize=10)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    panels[0].set_ylabel("crafted at", fontsize=10)
    figure.colorbar(image, ax=list(panels), shrink=0.8, label="wrong (%)")
    if stem is not None:
        save_png_and_svg(figure, stem)
    return figure
