"""From adversarial pixels to an 8-bit image that is still adversarial, within the budget."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ...classifiers.freezing import frozen
from ...threat import ThreatModel
from .criteria import margin, misclassified
from .victim import Victim

LEVELS = 255
STEPS = 40
"""Steps of one grey level that the last resort takes."""


class Rounded(NamedTuple):
    """An 8-bit image.

    Attributes:
        levels: (C, H, W) uint8.
        fooled: whether the classifier is wrong about ``levels / 255``.
        nearest_fooled: whether it is about the nearest 8-bit image, which plain saving would have written.
        how: ``"nearest"``, ``"outwards"``, ``"by the gradient"`` or ``"by 8-bit steps"``.
    """

    levels: Tensor
    fooled: bool
    nearest_fooled: bool
    how: str


def round_to_levels(
    classifier: Callable[[Tensor], Tensor],
    pixels: Tensor,
    adversarial: Tensor,
    label: int,
    threat: ThreatModel,
) -> Rounded:
    """The 8-bit image nearest to an adversarial one, or another in the budget where that one fools nobody.

    Tried in this order: the nearest grey levels; each pixel's next level away from the clean image; of the
    two levels around each pixel the one that the margin's gradient asks for; ascent on the margin in steps of
    a whole grey level. All stay within the budget around the clean pixels, where those are 8-bit themselves.

    Args:
        classifier: pixels (1, C, H, W) in [0, 1] -> logits (1, K).
        pixels, adversarial: (1, C, H, W) in [0, 1].
        label: the class that is no longer to be predicted.
        threat: the budget.

    Returns:
        The first candidate that fools the classifier, else the nearest one.
    """
    victim = Victim(classifier)
    labels = torch.tensor([label], device=pixels.device)
    low, high = _allowed(pixels, threat)

    def fools(levels: Tensor) -> bool:
        return bool(misclassified(victim.logits(levels / LEVELS), labels)[0])

    with frozen(classifier):
        exact = adversarial * LEVELS
        nearest = _within(exact.round(), pixels, low, high, threat)
        with torch.no_grad():
            nearest_fools = fools(nearest)
        if nearest_fools:
            return Rounded(_bytes(nearest), True, True, "nearest")
        clean = pixels * LEVELS
        outwards = torch.where(exact >= clean, exact.ceil(), exact.floor())
        candidates = {"outwards": lambda: _within(outwards, pixels, low, high, threat)}
        candidates["by the gradient"] = lambda: _by_gradient(victim, exact, labels, pixels, low, high, threat)
        for how, make in candidates.items():
            levels = make()
            with torch.no_grad():
                if fools(levels):
                    return Rounded(_bytes(levels), True, False, how)
        levels = nearest
        for _ in range(STEPS):
            levels = _within(levels + _direction(victim, levels, labels), pixels, low, high, threat)
            with torch.no_grad():
                if fools(levels):
                    return Rounded(_bytes(levels), True, False, "by 8-bit steps")
    return Rounded(_bytes(nearest), False, False, "nearest")


def _allowed(pixels: Tensor, threat: ThreatModel) -> tuple[Tensor, Tensor]:
    """Lowest and highest grey level of each pixel in the budget; both are the nearest where there is none."""
    clean = pixels * LEVELS
    reach = threat.eps * LEVELS + 1e-3 if threat.norm == "linf" else torch.inf
    low, high = (clean - reach).ceil().clamp(0, LEVELS), (clean + reach).floor().clamp(0, LEVELS)
    nearest = clean.round()
    return torch.where(low > high, nearest, low), torch.where(low > high, nearest, high)


def _within(levels: Tensor, pixels: Tensor, low: Tensor, high: Tensor, threat: ThreatModel) -> Tensor:
    """Grey levels in the budget: clipped, and in l2 the smallest changes undone until the norm fits."""
    levels = levels.minimum(high).maximum(low)
    if threat.norm == "linf":
        return levels
    clean = pixels * LEVELS
    change = (levels - clean).abs().flatten()
    order = change.argsort(descending=True)
    fits = change[order].square().cumsum(0).sqrt() <= threat.eps * LEVELS + 1e-3
    kept = torch.zeros_like(change, dtype=torch.bool)
    kept[order[fits]] = True
    return torch.where(kept.view_as(levels), levels, clean.round())


def _by_gradient(victim: Victim, exact: Tensor, labels, pixels, low, high, threat) -> Tensor:
    up = _direction(victim, exact, labels)
    return _within(torch.where(up > 0, exact.ceil(), exact.floor()), pixels, low, high, threat)


def _direction(victim: Victim, levels: Tensor, labels: Tensor) -> Tensor:
    """Sign of the margin's gradient."""
    x = (levels / LEVELS).requires_grad_()
    return victim.gradient(margin(victim.logits(x), labels), x).sign()


def _bytes(levels: Tensor) -> Tensor:
    return levels[0].round().to(torch.uint8).cpu()
