"""What speaks against a robust accuracy: signs that the attacks were blind, and how the images are spread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .verdicts import Outcome

ZERO_GRADIENTS = 0.01
"""Fraction of all images above which exactly zero first gradients are suspicious."""
LATER_BREAKS = (0.05, 0.1)
"""What a later attack breaks is suspicious above this fraction of all images and of the earlier's survivors.

Honest models of our benchmarks stay below 0.045 of all images (99 % of 548 records)."""


def checks(outcome: Outcome, labels: Sequence[str]) -> dict[str, float | str]:
    """The ``checks`` of a record: zero gradients, what stood after each attack, and the verdict.

    Args:
        labels: short name of each of the outcome's attacks.
    """
    after = {f"robust_after_{label}": round(share, 6) for label, share in zip(labels, outcome.after)}
    zero = {"zero_gradient_fraction": max(outcome.zero_gradient, default=0.0)}
    return zero | after | {"masking": masking(outcome, labels)}


def masking(outcome: Outcome, labels: Sequence[str]) -> str:
    """``"none seen"``, or ``"suspected: …"`` with the signs of masked gradients.

    Signs: exactly zero first gradients; an attack that breaks many images which an earlier one left standing
    (cross-entropy of a saturated softmax, for one, loses its gradient without it being zero).
    """
    signs = []
    for label, seen, zero in zip(labels, outcome.attacked, outcome.zero_gradient):
        if seen * zero > ZERO_GRADIENTS:
            signs.append(f"{label} had an exactly zero first gradient on {seen * zero:.1%} of the images")
    for before, after, earlier, later in zip(outcome.after, outcome.after[1:], labels, labels[1:]):
        if before - after > LATER_BREAKS[0] and before - after > LATER_BREAKS[1] * before:
            signs.append(
                f"{later} broke {before - after:.1%} of the images that stood after {earlier} "
                f"({before:.1%} to {after:.1%})"
            )
    return f"suspected: {'; '.join(signs)}" if signs else "none seen"


def per_class(labels: np.ndarray, num_classes: int) -> dict[str, int]:
    """Least and most images of one of the K classes among labels (N,), and how many classes have none."""
    counts = np.bincount(np.asarray(labels), minlength=num_classes)
    return {"least": int(counts.min()), "most": int(counts.max()), "without": int((counts == 0).sum())}
