"""Threat models: what an attacker may do to an image, and the projections that enforce it.

Everything here lives on pixels in [0, 1], before normalisation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # budgets on a command line are checked without waiting for torch
    from torch import Tensor

Norm = Literal["linf", "l2"]
Space = Literal["native", "model"]


def parse_eps(value: str | float, name: str = "eps", norm: Norm = "linf") -> float:
    """Read a perturbation budget or step size given as ``"4/255"``, ``"0.0157"`` or a number.

    Args:
        name: what an error message calls it.
        norm: an l2 budget is measured over the whole image and may exceed 1.

    Raises:
        ValueError: not a finite number, not positive, or in linf 1 and above (pixels are in [0, 1]), with a
            hint when the value looks like 8-bit grey levels.
    """
    eps = _parse_number(value, name)
    if not eps > 0:
        raise ValueError(f"{name}={value!r} must be positive: an attack needs a budget, e.g. {name}='4/255'")
    if norm == "linf" and eps >= 1:
        hint = f": did you mean {eps:g}/255?" if eps <= 255 else ""
        raise ValueError(f"{name}={value!r} covers the whole pixel range [0, 1]{hint}")
    if not math.isfinite(eps):
        raise ValueError(f"{name}={value!r} must be finite")
    return eps


def format_eps(eps: float) -> str:
    """Write a budget the way papers do: ``0.01568… -> "4/255"``, other values as decimals."""
    levels = eps * 255
    quarters = round(levels * 4)
    return f"{quarters / 4:g}/255" if quarters and abs(levels * 4 - quarters) < 1e-6 else f"{eps:.6g}"


@dataclass(frozen=True)
class ThreatModel:
    """The set of allowed perturbations.

    Args:
        norm: ``"linf"`` (per pixel) or ``"l2"`` (per image, over all channels and pixels).
        eps: radius in pixel scale [0, 1]; ``"4/255"`` is accepted.
        space: resolution on which the perturbation lives: ``"native"`` (before the model's resize,
            so 32 x 32 for CIFAR) or ``"model"`` (on the model's input). Robust accuracies of the
            two are not comparable (OC-1).
    """

    norm: Norm = "linf"
    eps: float = 1 / 255
    space: Space = "native"

    def __post_init__(self):
        if self.norm not in ("linf", "l2"):
            raise ValueError(f"norm={self.norm!r} is unknown: choose 'linf' or 'l2'")
        if self.space not in ("native", "model"):
            raise ValueError(f"space={self.space!r} is unknown: choose 'native' or 'model'")
        object.__setattr__(self, "eps", parse_eps(self.eps, norm=self.norm))

    @classmethod
    def parse(cls, text: str, space: Space = "native") -> ThreatModel:
        """Read ``"linf:4/255"`` or ``"l2:0.5"``; a bare budget means linf."""
        norm, _, eps = text.rpartition(":")
        return cls(norm=norm or "linf", eps=eps, space=space)

    def __str__(self) -> str:
        return f"{self.norm}:{format_eps(self.eps) if self.norm == 'linf' else f'{self.eps:g}'}"

    def project(self, delta: Tensor, pixels: Tensor) -> Tensor:
        """Make a perturbation allowed: into the eps-ball, then so that ``pixels + delta`` is in [0, 1].

        Clipping to the box after the L2 projection cannot leave the ball again, because it only
        moves coordinates towards zero.

        Args:
            delta, pixels: (B, C, H, W), pixels in [0, 1].
        """
        if self.norm == "linf":
            delta = delta.clamp(-self.eps, self.eps)
        else:
            size = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            delta = delta * (self.eps / size.clamp(min=1e-12)).clamp(max=1.0)
        return delta.maximum(-pixels).minimum(1 - pixels)

    def ascent(self, gradient: Tensor) -> Tensor:
        """Steepest-ascent direction of unit size in this norm; a zero gradient stays zero."""
        if self.norm == "linf":
            return gradient.sign()
        return unit(gradient)

    def size(self, delta: Tensor) -> Tensor:
        """Size of each perturbation in this norm, (B,)."""
        flat = delta.flatten(1)
        return flat.abs().amax(1) if self.norm == "linf" else flat.norm(dim=1)

    def outside(self, attacked: Tensor, pixels: Tensor) -> Tensor:
        """Attacked images that leave the ball around ``pixels``, by more than a rounding, or [0, 1]; (B,)."""
        flat = attacked.flatten(1)
        far = self.size(attacked - pixels) > self.eps * (1 + 1e-4) + 1e-6
        return far | (flat.amin(1) < 0) | (flat.amax(1) > 1)


def unit(gradient: Tensor, order: float = 2) -> Tensor:
    """Gradients (B, C, H, W), each image's divided by its norm of this order; a zero gradient stays zero."""
    # By the peak first: squares of a saturated softmax's gradient (1e-25) underflow.
    gradient = gradient / _or_one(gradient.flatten(1).abs().amax(1)).view(-1, 1, 1, 1)
    return gradient / _or_one(gradient.flatten(1).norm(order, dim=1)).view(-1, 1, 1, 1)


def _or_one(size: Tensor) -> Tensor:
    """Sizes (B,) to divide by, with 1 for 0."""
    return size.masked_fill(size == 0, 1)


def _parse_number(value: str | float, name: str) -> float:
    try:
        if not isinstance(value, str):
            return float(value)
        top, slash, bottom = value.partition("/")
        return float(top) / float(bottom) if slash else float(top)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        raise ValueError(
            f"{name}={value!r} is not a number: give a fraction like '4/255' or a float like 0.0157"
        ) from None
