"""The Poincaré ball in its own points, as the reference of the polar chart: maps, distances, midpoints.

Of curvature -r, r = ``curvature`` > 0, radius 1 / sqrt(r) and the metric in which d(0, exp0(v)) = 2|v|,
conformal factor 2 / (1 - r|u|^2). Every function is safe at the zero vector. A float32 ball point cannot tell
its distance to the edge once sqrt(r)|u| > 0.999, which is why the package computes in the polar chart alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hf_hierrobust.geometry import Polar, polar
from hf_hierrobust.geometry.polar import check_points, invariant_mass
from hf_hierrobust.geometry.precision import (
    SQRT_EPS,
    accumulation_dtype,
    check_curvature,
    exact_products,
    full_precision,
    safe_norm,
)


def _scale_radially(x: Tensor, root: float | Tensor, function) -> Tensor:
    """function(root * |x|) * x / (root * |x|), with the identity as value and derivative at x = 0."""
    norm = safe_norm(x, keepdim=True)
    is_zero = norm == 0
    scaled = root * torch.where(is_zero, torch.ones_like(norm), norm)
    return torch.where(is_zero, torch.ones_like(norm), function(scaled) / scaled) * x


def _atanh_inside(x: Tensor) -> Tensor:
    return torch.atanh(x.clamp(max=1 - torch.finfo(x.dtype).eps))


def _gap(u: Tensor, curvature: float | Tensor) -> Tensor:
    """1 - r|u|^2, (...), at least one rounding step."""
    return (1 - curvature * u.square().sum(-1)).clamp(min=torch.finfo(u.dtype).eps)


@full_precision
def exp0(v: Tensor, curvature: float | Tensor) -> Tensor:
    """Exponential map at the origin, tangent vectors (..., D) to ball points (..., D)."""
    return _scale_radially(v, check_curvature(curvature) ** 0.5, torch.tanh)


@full_precision
def log0(u: Tensor, curvature: float | Tensor) -> Tensor:
    """Inverse of ``exp0``; points on or beyond the edge are read one rounding step inside it."""
    return _scale_radially(u, check_curvature(curvature) ** 0.5, _atanh_inside)


@full_precision
def mobius_add(u: Tensor, v: Tensor, curvature: float | Tensor) -> Tensor:
    """Möbius sum of broadcastable ball points (..., D); neither commutative nor associative."""
    r = check_curvature(curvature)
    uv = (u * v).sum(-1, keepdim=True)
    uu = (u * u).sum(-1, keepdim=True)
    vv = (v * v).sum(-1, keepdim=True)
    numerator = (1 + 2 * r * uv + r * vv) * u + (1 - r * uu) * v
    return numerator / (1 + 2 * r * uv + r**2 * uu * vv).clamp(min=1e-15)


@full_precision
def conformal_factor(u: Tensor, curvature: float | Tensor) -> Tensor:
    """lambda_u = 2 / (1 - r|u|^2), (...)."""
    return 2 / _gap(u, check_curvature(curvature))


@full_precision
def clip_to_ball(u: Tensor, curvature: float | Tensor, margin: float = 1e-3) -> Tensor:
    """Pull points (..., D) with |u| > (1 - margin) / sqrt(r) back to that sphere, keep all others (OC-4).

    Raises:
        ValueError: if ``margin`` is outside [0, 1).
    """
    if not 0 <= margin < 1:
        raise ValueError(f"margin must lie in [0, 1), got {margin}; it is a fraction of the ball radius")
    max_norm = (1 - margin) / check_curvature(curvature) ** 0.5
    norm = safe_norm(u, keepdim=True)
    outside = norm > max_norm
    return torch.where(outside, max_norm / torch.where(outside, norm, torch.ones_like(norm)), 1.0) * u


def _chord_to_distance(squared: Tensor, gaps: Tensor, curvature: float | Tensor) -> Tensor:
    root = curvature**0.5
    return 2 / root * torch.asinh(root * (squared / gaps + SQRT_EPS).sqrt())


@full_precision
def distance(u: Tensor, v: Tensor, curvature: float | Tensor) -> Tensor:
    """Row-wise hyperbolic distance (...) of broadcastable points (..., D), tending to 2|u - v| as r -> 0.

    The arsinh form is right where the artanh form overflows (near the edge) and where the arcosh form returns
    0 (close points). Distances are bounded below by 2e-6, which makes the gradient at u = v zero, not nan.
    """
    check_curvature(curvature)
    return _chord_to_distance((u - v).square().sum(-1), _gap(u, curvature) * _gap(v, curvature), curvature)


@full_precision
def pairwise_distance(u: Tensor, v: Tensor, curvature: float | Tensor) -> Tensor:
    """Hyperbolic distances (M, N) of u: (M, D) and v: (N, D), through one matrix product."""
    check_curvature(curvature)
    gaps = _gap(u, curvature)[:, None] * _gap(v, curvature)[None, :]
    x, y = exact_products(u, v)
    norms = x.square().sum(-1)[:, None] + y.square().sum(-1)[None, :]
    squared = torch.addmm(norms, x, y.mT, alpha=-2).clamp(min=0).to(u.dtype)
    return _chord_to_distance(squared, gaps, curvature)


@full_precision
def depth_radius(u: Tensor, curvature: float | Tensor) -> Tensor:
    """Hyperbolic distance to the origin, (...): rho(u) = 2 artanh(sqrt(r)|u|) / sqrt(r)."""
    root = check_curvature(curvature) ** 0.5
    return 2 / root * _atanh_inside(root * safe_norm(u))


def _lorentz(u: Tensor, curvature: float | Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Weighted lambda_u * u and lambda_u - 1 in the accumulation type."""
    dtype = accumulation_dtype(u.device)
    u = u.to(dtype)
    factor = 2 / _gap(u, curvature.to(dtype) if isinstance(curvature, Tensor) else curvature)
    weights = torch.ones_like(factor) if weights is None else weights.to(dtype)
    return (weights * factor).unsqueeze(-1) * u, weights * (factor - 1)


@full_precision
def midpoint_sums(
    u: Tensor,
    index: Tensor,
    num_nodes: int,
    curvature: float | Tensor,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Additive state (S, Z) of the midpoints of ball points, see ``polar.midpoint_sums``.

    Args:
        u: (M, D) ball points.
        index: (M,) integer node of each point, in [0, num_nodes).
        num_nodes: n, number of nodes; a node without points gets S = 0, Z = 0.
        curvature: r > 0.
        weights: (M,) non-negative weights, 1 by default.

    Returns:
        S: (n, D) and Z: (n,), float64 where the device has it.

    Raises:
        ValueError: if ``index`` or ``weights`` is not of shape (M,).
    """
    check_curvature(curvature)
    check_points(u.shape[:-1], index=index, weights=weights)
    space, time = _lorentz(u, curvature, weights)
    S = space.new_zeros(num_nodes, u.shape[-1]).index_add(0, index, space)
    return S, time.new_zeros(num_nodes).index_add(0, index, time)


@full_precision
def midpoint_from_sums(
    S: Tensor, Z: Tensor, curvature: float | Tensor, dtype: torch.dtype | None = None
) -> Tensor:
    """Ball points (n, D) of the midpoints with sums S: (n, D), Z: (n,); an empty node gives the origin.

    With k = S / Z in the Klein model, k / (1 + sqrt(1 - r|k|^2)) is S / (Z + invariant mass).

    Args:
        dtype: type of the result; by default the one of the sums, float64.
    """
    u = S / (Z + invariant_mass(S, Z, curvature)).unsqueeze(-1)
    return u.to(dtype) if dtype else u


@full_precision
def einstein_midpoint(u: Tensor, weights: Tensor | None, curvature: float | Tensor) -> Tensor:
    """Einstein midpoint (..., D) of ball points u: (..., N, D) with weights (..., N) >= 0 or None for ones.

    Raises:
        ValueError: if ``weights`` is not of shape (..., N).
    """
    check_curvature(curvature)
    check_points(u.shape[:-1], weights=weights)
    space, time = _lorentz(u, curvature, weights)
    return midpoint_from_sums(space.sum(-2), time.sum(-1), curvature, u.dtype)


# ---- from and to the polar chart ----


@full_precision
def from_ball(u: Tensor, curvature: float | Tensor) -> Polar:
    """Ball points (..., D) to polar coordinates.

    Norms are cut at one rounding step inside the edge: a float32 point never maps beyond sqrt(r) * rho = 17.
    """
    root = check_curvature(curvature) ** 0.5
    direction, norm = polar._direction_and_norm(u)
    inside = (root * norm).clamp(max=1 - torch.finfo(u.dtype).eps)
    return Polar(direction, 2 * torch.atanh(inside) / root)


@full_precision
def to_ball(p: Polar, curvature: float | Tensor) -> Tensor:
    """Polar points to ball points (..., D), tanh(sqrt(r) * rho / 2) / sqrt(r) along the direction."""
    root = check_curvature(curvature) ** 0.5
    return (torch.tanh(root * p.radius / 2) / root).unsqueeze(-1) * p.direction


@full_precision
def to_tangent(p: Polar) -> Tensor:
    """Logarithm at the origin, (..., D): the tangent vector of length rho / 2."""
    return (p.radius / 2).unsqueeze(-1) * p.direction


def polar_midpoint(
    p: Polar,
    index: Tensor,
    num_nodes: int,
    curvature: float | Tensor,
    weights: Tensor | None = None,
) -> Polar:
    """Einstein midpoint of each node's points, (n, D) and (n,), in the type of ``p`` (at least float32)."""
    S, Z = polar.midpoint_sums(p, index, num_nodes, curvature, weights)
    dtype = torch.promote_types(p.direction.dtype, torch.float32)
    return polar.midpoint_from_sums(S, Z, curvature, dtype)
