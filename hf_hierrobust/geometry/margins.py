"""Margins that a classifier can reach at a given norm: Theorem 1 of HierRobust (arXiv 2604.18867).

The paper's statement is that the feasible log-margin of a hyperbolic classifier grows without bound as the
embedding norm eta approaches the edge of the ball, while the Euclidean one stops. The formulas here are
derived from the triangle inequality: with scores -temperature * d(feature, prototype) and all norms eta,

    m_r(eta) = temperature * d(prototype, -prototype) = 2 * temperature * rho(eta),

linear in hyperbolic depth rho and logarithmic in the gap to the edge; parents, at smaller eta, have smaller
feasible margins than their children. ``temperature`` multiplies scores (CLIP's logit scale), it does not
divide them. Curvature is -r with r = ``curvature`` > 0; norms are those of the ball of radius 1 / sqrt(r).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .precision import check_curvature


class SimplexMargins(NamedTuple):
    """Margins of equiangular prototypes, scores -temperature * d and temperature * <feature, prototype>."""

    hyperbolic: Tensor
    euclidean: Tensor


def _check_eta(eta: float | Tensor, curvature: float | Tensor | None = None) -> Tensor:
    eta = eta if isinstance(eta, Tensor) else torch.tensor(eta, dtype=torch.float64)
    limit = float("inf") if curvature is None else float(check_curvature(curvature)) ** -0.5
    if not bool(((eta >= 0) & (eta < limit)).all()):
        raise ValueError(
            f"eta must lie in [0, {limit:.6g}), the norms inside the ball, "
            f"got {eta.min():.6g} to {eta.max():.6g}"
        )
    return eta


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(f"temperature multiplies the scores and must be positive, got {temperature}")


def hyperbolic_margin(eta: float | Tensor, curvature: float | Tensor, temperature: float = 1.0) -> Tensor:
    """Largest log-margin with all norms eta (...): (4 t / sqrt(r)) artanh(sqrt(r) eta), infinite at the edge.

    Raises:
        ValueError: if an eta is outside [0, 1 / sqrt(r)) or another argument is not positive.
    """
    _check_temperature(temperature)
    eta = _check_eta(eta, curvature)
    root = curvature**0.5
    return 4 * temperature / root * torch.atanh(root * eta)


def euclidean_margin(eta: float | Tensor, temperature: float = 1.0) -> Tensor:
    """Largest log-margin of inner-product scores with all norms eta (...): 2 t eta^2.

    Inside the ball it cannot pass 2 t / r.

    Raises:
        ValueError: if an eta is negative or ``temperature`` is not positive.
    """
    _check_temperature(temperature)
    return 2 * temperature * _check_eta(eta).square()


def simplex_margins(
    eta: float | Tensor, num_classes: int, curvature: float | Tensor, temperature: float = 1.0
) -> SimplexMargins:
    """Margins (...) at a prototype when ``num_classes`` prototypes are equiangular, cosine -1 / (K - 1).

    Two classes are the antipodal pair of ``hyperbolic_margin`` and ``euclidean_margin``.

    Raises:
        ValueError: if ``num_classes`` < 2, an eta is outside the ball or another argument is not positive.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}")
    _check_temperature(temperature)
    eta = _check_eta(eta, curvature)
    root = curvature**0.5
    versine = num_classes / (num_classes - 1)  # 1 - cos of the angle between two prototypes
    chord = eta * (2 * versine) ** 0.5
    hyperbolic = 2 * temperature / root * torch.asinh(root * chord / (1 - curvature * eta.square()))
    return SimplexMargins(hyperbolic, temperature * versine * eta.square())


def classification_margin(scores: Tensor, labels: Tensor) -> Tensor:
    """Score of the true class minus the best other score, (B,), from scores (B, K) and labels (B,).

    Raises:
        ValueError: if there are fewer than two classes.
    """
    if scores.shape[-1] < 2:
        raise ValueError(f"scores must have at least two classes, got shape {tuple(scores.shape)}")
    true = scores.gather(-1, labels.unsqueeze(-1))
    others = scores.scatter(-1, labels.unsqueeze(-1), -float("inf"))
    return true.squeeze(-1) - others.amax(-1)


def robust_radius(margin: Tensor, temperature: float = 1.0) -> Tensor:
    """Hyperbolic distance (...) an embedding may move before its prediction can change: margin / (2 t).

    Scores -t * d are t-Lipschitz each, hence a margin between two of them is 2 t-Lipschitz. This certifies
    the embedding, not the image. A misclassified point (negative margin) has radius 0.

    Raises:
        ValueError: if ``temperature`` is not positive.
    """
    _check_temperature(temperature)
    return margin.clamp(min=0) / (2 * temperature)
