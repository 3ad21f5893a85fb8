"""What speaks against a robust accuracy: signs that the attacks were blind, and how the images are spread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..attacks import Attack
from .metrics import wilson_interval
from .plan import attack_labels
from .verdicts import Outcome

ZERO_GRADIENTS = 0.01
"""Fraction of all images above which exactly zero first gradients are suspicious."""
SHORT = 10
"""An attack of fewer steps than this says nothing when one of more steps breaks what it left."""
SHARE = 0.2
"""Gradients of another loss must also break more than this fraction of what the first one left."""
HONEST: dict[tuple[str, str], float] = {
    # Cross-entropy aims beside the nearest boundary: 0.057 on an AGFT model, 99 % of 644 records below 0.045.
    ("untargeted", "untargeted"): 0.06,
    # Nine times the work, and DLR: 0.02 to 0.05 on CIFAR-10, up to 0.08 with a hundred classes and more.
    ("untargeted", "targeted"): 0.08,
    # Square climbs the margin, and finds some of what a cross-entropy misses.
    ("untargeted", "black-box"): 0.02,
    ("targeted", "untargeted"): 0.02,
    ("targeted", "targeted"): 0.02,
    # The official AutoAttack warns above this.
    ("targeted", "black-box"): 0.002,
}
"""What an attack breaks at most of all images of an honest model, by what the best earlier one and it see.

What stands after queries alone says nothing about gradients."""


class Look(NamedTuple):
    """An attack, as far as its success says something about the gradients of another.

    Attributes:
        label: short name.
        sight: see `Attack`; None is not compared: it changes more than pixels.
        num_steps: along gradients; None where they are not counted.
    """

    label: str
    sight: str | None = None
    num_steps: int | None = None

    @classmethod
    def of(cls, attacks: Sequence[Attack]) -> list[Look]:
        """Those of one budget."""
        return [
            cls(label, attack.sight, getattr(attack, "num_steps", None))
            for label, attack in zip(attack_labels(attacks), attacks)
        ]


def checks(outcome: Outcome, looks: Sequence[Look]) -> dict[str, float | str]:
    """The ``checks`` of a record: zero gradients, what stood after each attack, and the verdict.

    Shares are of all images: a later attack sees only those that stand.

    Args:
        looks: the outcome's attacks.
    """
    after = {f"robust_after_{look.label}": round(share, 6) for look, share in zip(looks, outcome.after)}
    shares = [seen * zero for seen, zero in zip(outcome.attacked, outcome.zero_gradient)]
    zero = {"zero_gradient_fraction": max(shares, default=0.0)}
    return zero | after | {"masking": masking(outcome, looks)}


def masking(outcome: Outcome, looks: Sequence[Look]) -> str:
    """``"none seen"``, or ``"suspected: …"`` with the signs of masked gradients.

    Signs: exactly zero first gradients; an attack that breaks more of the images which earlier ones left than
    it does on honest models (cross-entropy of a saturated softmax, for one, loses its gradient without it
    being zero).
    """
    signs = []
    for look, seen, zero in zip(looks, outcome.attacked, outcome.zero_gradient):
        if seen * zero > ZERO_GRADIENTS:
            signs.append(
                f"{look.label} had an exactly zero first gradient on {seen * zero:.1%} of the images"
            )
    for place, (before, after) in enumerate(zip(outcome.after, outcome.after[1:]), 1):
        if suspicious(looks[:place], looks[place], before, after, len(outcome.clean)):
            signs.append(
                f"{looks[place].label} broke {before - after:.1%} of the images that stood after "
                f"{looks[place - 1].label} ({before:.1%} to {after:.1%})"
            )
    return f"suspected: {'; '.join(signs)}" if signs else "none seen"


def suspicious(earlier: Sequence[Look], later: Look, before: float, after: float, num_images: int) -> bool:
    """Whether an attack breaks more of what earlier ones left than it does on honest models.

    More: the lower end of Wilson's interval lies above `HONEST`, and the images are at least two.

    Args:
        earlier: the attacks that left ``before`` of the images; later leaves ``after`` of them.
    """
    enough = min(SHORT, later.num_steps or SHORT)
    compared = [one for one in earlier if one.num_steps is None or one.num_steps >= enough]
    pairs = [(one.sight, later.sight) for one in compared if (one.sight, later.sight) in HONEST]
    broken = round((before - after) * num_images)
    if not pairs or broken < 2:
        return False
    (sight, other) = pair = min(pairs, key=HONEST.__getitem__)
    another_loss = sight == "untargeted" and other != "black-box"
    if another_loss and broken <= SHARE * before * num_images:
        return False
    return wilson_interval(broken, num_images)[0] > HONEST[pair]


def per_class(labels: np.ndarray, num_classes: int) -> dict[str, int]:
    """Least and most images of one of the K classes among labels (N,), and how many classes have none."""
    counts = np.bincount(np.asarray(labels), minlength=num_classes)
    return {"least": int(counts.min()), "most": int(counts.max()), "without": int((counts == 0).sum())}
