"""Attacked images: before, what was added, after, and what the model says of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from .figure_io import drawn, new_figure, save_png, wrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Darker than the palette's green and vermillion, to be read as text on white.
RIGHT, WRONG = "#00785A", "#C04A00"
REACH = 0.25
"""How far from mid-grey the largest perturbation is drawn: of 0.5, so that no colour saturates."""


@drawn
def plot_examples(
    pixels: Tensor,
    adversarial: Tensor,
    clean_predictions: Sequence[str],
    adversarial_predictions: Sequence[str],
    true_names: Sequence[str],
    path: str | Path | None = None,
    *,
    setting: str = "",
    amplify: float | None = None,
    max_columns: int = 6,
    title: str = "Adversarial examples",
) -> Figure:
    """Three rows: image, amplified perturbation around mid-grey, adversarial image, with predictions below.

    Args:
        pixels, adversarial: `(B, 3, H, W)` in [0, 1]; the first `max_columns` are shown.
        clean_predictions, adversarial_predictions, true_names: B class names.
        setting: model, attack, space, and how the images were chosen.
        amplify: factor of the perturbation; None takes the largest whole one that stays within `REACH`.

    Raises:
        ValueError: shapes differ, pixels outside [0, 1], a list of names of another length, or an `amplify`
            at which the perturbation saturates.
        ImportError: matplotlib is missing.
    """
    _check(pixels, adversarial, (clean_predictions, adversarial_predictions, true_names))
    columns = min(len(pixels), max_columns)
    clean, attacked = (
        t[:columns].detach().float().cpu().clamp(0, 1).permute(0, 2, 3, 1).numpy()
        for t in (pixels, adversarial)
    )
    delta = attacked - clean
    largest = float(np.abs(delta).max())
    if amplify is None:
        amplify = max(1.0, math.floor(REACH / largest + 1e-3)) if largest else 1.0
    elif amplify * largest > 0.5:
        raise ValueError(
            f"amplify={amplify:g} saturates: the largest perturbation is {largest:.3g}, so at most "
            f"{0.5 / largest:.3g} is shown truly"
        )
    noise = np.clip(0.5 + amplify * delta, 0, 1)

    size = f"largest change of a pixel {255 * largest:.3g}/255, drawn × {amplify:g} around grey"
    figure = new_figure(0.7 + 1.5 * columns, 5.7, title, "; ".join(filter(None, (setting, size))))
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
        grid[0, column].set_title(wrapped(true), fontsize=10)
        for row, predictions in ((0, clean_predictions), (2, adversarial_predictions)):
            right = predictions[column] == true
            text = f"{'✓' if right else '✗'} {wrapped(predictions[column])}"
            grid[row, column].set_xlabel(text, fontsize=10, color=RIGHT if right else WRONG)
    return save_png(figure, path)


def _check(pixels: Tensor, adversarial: Tensor, lists: Sequence[Sequence[str]]) -> None:
    if pixels.shape != adversarial.shape or pixels.ndim != 4 or pixels.shape[1] != 3 or len(pixels) == 0:
        raise ValueError(
            f"pixels {tuple(pixels.shape)} and adversarial {tuple(adversarial.shape)} must both be "
            "(B, 3, H, W) with B >= 1."
        )
    for name, images in (("pixels", pixels), ("adversarial", adversarial)):
        if images.min() < -1e-6 or images.max() > 1 + 1e-6:
            raise ValueError(f"{name} must be in [0, 1]; pass pixels before the processor's normalisation.")
    for names in lists:
        if len(names) != len(pixels):
            raise ValueError(
                f"{len(pixels)} images but {len(names)} names in one of the three lists of names."
            )
