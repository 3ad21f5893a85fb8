"""What a training perturbation is."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Perturbation(NamedTuple):
    """One training perturbation: what the training loss is evaluated on.

    Attributes:
        pixels: (B, C, H, W) adversarial pixels in [0, 1].
        text_delta: (N, D) or (1, D), added to the text nodes' tangent vectors, or None.
        levels: tree levels whose training loss counts on it, None for all.
    """

    pixels: Tensor
    text_delta: Tensor | None = None
    levels: tuple[int, ...] | None = None
