"""Poincaré ball in polar coordinates about the origin: the chart of the training and attack hot path.

A point is a unit direction and its hyperbolic distance rho from the origin. Near the edge of the ball this
chart keeps what a ball point stored in float32 has already lost: the radius is an ordinary number (at most
8 / sqrt(r) under the default clip) and not the 7th digit of a norm close to 1. Distances, midpoints and all
their gradients stay accurate there, while the Möbius form returns gradients that look like robustness.

Curvature is -r with r = ``curvature`` > 0, a float or a 0-dim tensor (gradients flow to it). The metric is
the one in which d(0, exp0(v)) = 2|v|, so a tangent vector v has rho = 2|v|. With a = sqrt(r) * rho, the
point has Lorentz coordinates sinh(a) * direction / sqrt(r) and cosh(a). These equal lambda_u * u and
lambda_u - 1 of the ball point u, hence midpoints need no ball points either.

The default clip keeps a <= 8, so sinh(a) * sinh(b) <= 2.3e6. Unclipped points are safe in float32 up to
a = 40; beyond, the product of two sinh overflows.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .precision import (
    SQRT_EPS,
    accumulation_dtype,
    check_curvature,
    exact_products,
    full_precision,
    safe_norm,
)


class Polar(NamedTuple):
    """Points in polar coordinates.

    Attributes:
        direction: (..., D) unit vectors; the zero vector stands for the direction of the origin.
        radius: (...) hyperbolic distance to the origin, rho = 2|v| for the tangent vector v.
    """

    direction: Tensor
    radius: Tensor


def _direction_and_norm(v: Tensor) -> tuple[Tensor, Tensor]:
    norm = safe_norm(v, keepdim=True)
    direction = v / torch.where(norm == 0, torch.ones_like(norm), norm)
    return direction, norm.squeeze(-1)


def _tangent_bound(max_tangent_norm: float | None, ball_margin: float | None) -> float:
    """Largest sqrt(r) * |v| allowed by the tangent clip and by the ball clip together."""
    bound = math.inf
    if max_tangent_norm is not None:
        if not max_tangent_norm > 0:
            raise ValueError(
                f"max_tangent_norm must be positive, got {max_tangent_norm}; pass None to switch it off"
            )
        bound = max_tangent_norm
    if ball_margin:
        if not 0 < ball_margin < 1:
            raise ValueError(
                f"ball_margin must lie in [0, 1), got {ball_margin}; pass 0 or None to switch it off"
            )
        bound = min(bound, math.atanh(1 - ball_margin))
    return bound


@full_precision
def from_tangent(
    v: Tensor,
    curvature: float | Tensor,
    *,
    max_tangent_norm: float | None = 4.0,
    ball_margin: float | None = 1e-3,
) -> Polar:
    """Exponential map at the origin, ``clip(exp0(v))``, without ever forming the ball point.

    Both clips of OC-4 and OC-5 act on the radius only: |v| <= ``max_tangent_norm`` / sqrt(r), and the ball
    clip |u| <= (1 - ``ball_margin``) / sqrt(r), here |v| <= artanh(1 - ball_margin) / sqrt(r). A clipped
    point keeps its gradient along the sphere and loses the one along the radius. At v = 0
    exactly, where the chart is singular, gradients are 0.

    Args:
        v: (..., D) tangent vectors at the origin (scaled, not normalised, embeddings).
        curvature: r > 0.
        max_tangent_norm: bound on |v| in units of 1 / sqrt(r); None switches it off.
        ball_margin: distance kept from the edge, in units of the ball radius; 0 or None switches it off.

    Raises:
        ValueError: if curvature, ``max_tangent_norm`` or ``ball_margin`` is out of range.
    """
    root = check_curvature(curvature) ** 0.5
    bound = _tangent_bound(max_tangent_norm, ball_margin)
    direction, norm = _direction_and_norm(v)
    return Polar(direction, 2 * (root * norm).clamp(max=bound) / root)


def _law_of_cosines(radial: Tensor, angular: Tensor, curvature: float | Tensor) -> Tensor:
    """Distance from ``radial`` = sinh((a - b) / 2) and ``angular`` = sinh(a) sinh(b) (1 - cos theta) / 2.

    This is cosh(sqrt(r) d) = cosh(a - b) + sinh(a) sinh(b) (1 - cos theta), halved into
    sinh^2(sqrt(r) d / 2) = radial^2 + angular so that no two large numbers are subtracted.
    """
    squared = torch.addcmul(angular + curvature * SQRT_EPS, radial, radial)
    return 2 / curvature**0.5 * torch.asinh(squared.sqrt())


@full_precision
def pairwise_distance(p: Polar, q: Polar, curvature: float | Tensor) -> Tensor:
    """Hyperbolic distances (M, N) between p: (M, D), (M,) and q: (N, D), (N,).

    One matrix product, nothing of size M x N x D. The cosine comes from inner products, so in float32 the
    distance of two points an angle below 1e-2 apart loses digits; pass float64 points (or use the row-wise
    ``distance``) where that matters.
    """
    root = check_curvature(curvature) ** 0.5
    a, b = root * p.radius, root * q.radius
    sinh_a, sinh_b = torch.sinh(a)[:, None], torch.sinh(b)[:, None]
    x, y, x_norm, y_norm = exact_products(sinh_a * p.direction, sinh_b * q.direction, sinh_a, sinh_b)
    angular = torch.addmm(x_norm * y_norm.mT, x, y.mT, beta=0.5, alpha=-0.5).clamp(min=0).to(a.dtype)
    return _law_of_cosines(torch.sinh(a[:, None] / 2 - b[None, :] / 2), angular, curvature)


@full_precision
def distance(p: Polar, q: Polar, curvature: float | Tensor) -> Tensor:
    """Row-wise hyperbolic distance (...) between points of broadcastable shape, accurate for close points."""
    root = check_curvature(curvature) ** 0.5
    a, b = root * p.radius, root * q.radius
    versine = (p.direction - q.direction).square().sum(-1) / 2  # 1 - cos(theta)
    return _law_of_cosines(torch.sinh((a - b) / 2), torch.sinh(a) * torch.sinh(b) * versine / 2, curvature)


def check_points(shape: torch.Size, **tensors: Tensor | None) -> None:
    """Raise ValueError, naming the argument, unless each given tensor has one entry per point."""
    for name, tensor in tensors.items():
        if tensor is not None and tensor.shape != shape:
            raise ValueError(
                f"{name} must have one entry per point, shape {tuple(shape)}, got {tuple(tensor.shape)}"
            )


@full_precision
def invariant_mass(S: Tensor, Z: Tensor, curvature: float | Tensor) -> Tensor:
    """sqrt(Z^2 - r|S|^2), (...), of midpoint sums S: (..., D), Z: (...); 1 for an empty node (Z = 0).

    The Lorentz length of the summed points. It grows with their spread and equals the total weight when they
    coincide; a midpoint weighted by it stands exactly for its points.
    """
    norm = check_curvature(curvature) ** 0.5 * safe_norm(S)
    floor = torch.where(Z > 0, torch.finfo(Z.dtype).eps * Z.square(), torch.ones_like(Z)).detach()
    return torch.maximum((Z - norm) * (Z + norm), floor).sqrt()


@full_precision
def midpoint_sums(
    p: Polar,
    index: Tensor,
    num_nodes: int,
    curvature: float | Tensor,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Additive state of the Einstein midpoints: S = sum of w * lambda_u * u, Z = sum of w * (lambda_u - 1).

    Sums of children are the sums of their parent, so a roll-up carries (S, Z) and never midpoints: averages
    of averages differ from the direct average (OC-7). Both are float64 whatever the input (float32 on
    devices without it), because the midpoint needs Z - sqrt(r)|S|, which float32 cannot resolve near the
    edge.

    Args:
        p: M points, direction (M, D) and radius (M,).
        index: (M,) integer node of each point, in [0, num_nodes).
        num_nodes: n, number of nodes; a node without points gets S = 0, Z = 0.
        curvature: r > 0.
        weights: (M,) non-negative weights, 1 by default.

    Returns:
        S: (n, D) and Z: (n,).

    Raises:
        ValueError: if ``index`` or ``weights`` is not of shape (M,).
    """
    check_curvature(curvature)
    check_points(p.radius.shape, index=index, weights=weights)
    dtype = accumulation_dtype(p.radius.device)
    root = (curvature.to(dtype) if isinstance(curvature, Tensor) else curvature) ** 0.5
    # A float32 direction is a unit vector to 6e-8 only; that error times sinh(a) is as large as Z - |S|.
    direction, _ = _direction_and_norm(p.direction.to(dtype))
    angle = root * p.radius.to(dtype)
    space, time = torch.sinh(angle) / root, torch.cosh(angle)
    if weights is not None:
        space, time = weights.to(dtype) * space, weights.to(dtype) * time
    S = direction.new_zeros(num_nodes, direction.shape[-1]).index_add(0, index, space[:, None] * direction)
    Z = angle.new_zeros(num_nodes).index_add(0, index, time)
    return S, Z


@full_precision
def midpoint_from_sums(
    S: Tensor, Z: Tensor, curvature: float | Tensor, dtype: torch.dtype | None = None
) -> Polar:
    """Einstein midpoints from their sums S: (n, D), Z: (n,), whose Klein point is S / Z.

    The radius is arsinh(sqrt(r)|S| / mass) / sqrt(r) with the invariant mass sqrt(Z^2 - r|S|^2). A node
    without points (Z = 0) comes back as the origin; select present nodes with ``Z > 0``.

    Args:
        dtype: type of the result; by default the one of the sums, float64.
    """
    root = check_curvature(curvature) ** 0.5
    direction, norm = _direction_and_norm(S)
    radius = torch.asinh(root * norm / invariant_mass(S, Z, curvature)) / root
    return Polar(direction.to(dtype), radius.to(dtype)) if dtype else Polar(direction, radius)
