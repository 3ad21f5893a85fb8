"""The polar chart describes the same space as the ball."""

from __future__ import annotations

import math

import poincare
import pytest
import torch

from hf_hierrobust.geometry import Polar, polar

UNCLIPPED = {"max_tangent_norm": None, "ball_margin": None}


def test_charts_are_inverse(space):
    v, r = space.tangents(), space.curvature
    p = polar.from_tangent(v, r)
    space.close(p.direction.norm(dim=-1), torch.ones_like(p.radius))
    space.close(p.radius, 2 * v.norm(dim=-1))
    space.close(poincare.to_tangent(p), v)
    space.close(poincare.to_ball(p, r), poincare.exp0(v, r))
    back = poincare.from_ball(poincare.to_ball(p, r), r)
    space.close(back.radius, p.radius, factor=5)
    space.close(back.direction, p.direction, factor=5)


def test_distances_equal_those_of_the_ball(curvature, seed):
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(20, 6, generator=generator, dtype=torch.float64) / curvature**0.5
    w = torch.randn(9, 6, generator=generator, dtype=torch.float64) / curvature**0.5
    p, q = polar.from_tangent(v, curvature, **UNCLIPPED), polar.from_tangent(w, curvature, **UNCLIPPED)
    a, b = poincare.exp0(v, curvature), poincare.exp0(w, curvature)
    expected = poincare.pairwise_distance(a, b, curvature)
    torch.testing.assert_close(polar.pairwise_distance(p, q, curvature), expected, rtol=1e-9, atol=1e-9)
    rows = polar.distance(Polar(p.direction[:9], p.radius[:9]), q, curvature)
    torch.testing.assert_close(rows, poincare.distance(a[:9], b, curvature), rtol=1e-9, atol=1e-9)


def test_distance_is_a_metric(space):
    r = space.curvature
    p, q, s = (polar.from_tangent(space.tangents(max_norm=3.5), r) for _ in range(3))
    d = polar.pairwise_distance(p, q, r)
    space.close(d, polar.pairwise_distance(q, p, r).mT, factor=5)
    through = polar.distance(p, s, r) + polar.distance(s, q, r)
    assert (d.diagonal() <= through + 5 * space.tolerance).all()
    itself = torch.full_like(p.radius, 2e-6)
    torch.testing.assert_close(polar.distance(p, p, r), itself, rtol=1e-3, atol=0)


def test_pairwise_equals_row_wise(space):
    r = space.curvature
    p = polar.from_tangent(space.tangents(n=7, max_norm=3.5), r)
    q = polar.from_tangent(space.tangents(n=9, max_norm=3.5), r)
    rows = polar.distance(Polar(p.direction[:, None], p.radius[:, None]), q, r)
    space.close(polar.pairwise_distance(p, q, r), rows, factor=20)


def test_distance_to_the_origin_is_the_radius(space):
    p = polar.from_tangent(space.tangents(max_norm=3.5), space.curvature)
    origin = polar.from_tangent(torch.zeros(1, 5, dtype=space.dtype), space.curvature)
    space.close(polar.pairwise_distance(p, origin, space.curvature)[:, 0], p.radius)
    space.close(polar.distance(origin, p, space.curvature), p.radius)


def test_lorentz_coordinates(space):
    """lambda_u u = sinh(sqrt(r) rho) direction / sqrt(r) and lambda_u - 1 = cosh(sqrt(r) rho)."""
    v, r = space.tangents(), space.curvature
    u, p = poincare.exp0(v, r), polar.from_tangent(v, r)
    factor = poincare.conformal_factor(u, r)
    angle = r**0.5 * p.radius
    space.close(factor[:, None] * u, torch.sinh(angle)[:, None] * p.direction / r**0.5, factor=20)
    space.close(factor - 1, torch.cosh(angle), factor=20)


def test_clips_equal_those_of_the_ball(space):
    v, r = space.tangents(n=200, max_norm=6.0), space.curvature
    scale = (4.0 / (r**0.5 * v.norm(dim=-1, keepdim=True))).clamp(max=1)
    expected = poincare.clip_to_ball(poincare.exp0(v * scale, r), r, margin=1e-3)
    p = polar.from_tangent(v, r)
    space.close(poincare.to_ball(p, r), expected)
    assert float(p.radius.max()) * r**0.5 == pytest.approx(2 * math.atanh(1 - 1e-3), rel=1e-6)


def test_each_clip_can_be_switched_off():
    v = torch.tensor([[5.0, 0.0]], dtype=torch.float64)
    assert polar.from_tangent(v, 1.0, ball_margin=0).radius == 8
    assert polar.from_tangent(v, 4.0, ball_margin=None).radius == 4
    assert polar.from_tangent(v, 1.0, max_tangent_norm=None, ball_margin=0).radius == 10
    assert polar.from_tangent(v, 1.0, max_tangent_norm=1.0).radius == 2


def test_clipped_point_still_moves_along_its_sphere():
    v = torch.tensor([[6.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    target = polar.from_tangent(torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64), 1.0)
    polar.distance(polar.from_tangent(v, 1.0), target, 1.0).sum().backward()
    assert v.grad[0, 0].abs() < 1e-12 and v.grad[0, 1] < -1e-2


def test_small_curvature_is_flat():
    generator = torch.Generator().manual_seed(0)
    v, w = torch.randn(2, 20, 4, generator=generator, dtype=torch.float64)
    p, q = polar.from_tangent(v, 1e-10), polar.from_tangent(w, 1e-10)
    torch.testing.assert_close(polar.distance(p, q, 1e-10), 2 * (v - w).norm(dim=-1), rtol=0, atol=1e-7)
    torch.testing.assert_close(polar.pairwise_distance(p, q, 1e-10), 2 * torch.cdist(v, w), rtol=0, atol=1e-7)


def test_largest_default_points_do_not_overflow():
    v = torch.eye(2) * 1e4
    p = polar.from_tangent(v, 1.0)
    d = polar.pairwise_distance(p, Polar(-p.direction, p.radius), 1.0)
    assert torch.isfinite(d).all()
    torch.testing.assert_close(d.diagonal(), 2 * p.radius, rtol=1e-5, atol=0)
    wide = Polar(torch.eye(2), torch.full((2,), 40.0))  # the documented fp32 limit without clips
    torch.testing.assert_close(
        polar.distance(wide, Polar(-wide.direction, wide.radius), 1.0),
        torch.full((2,), 80.0),
        rtol=1e-5,
        atol=0,
    )


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"max_tangent_norm": 0.0}, "max_tangent_norm"),
        ({"ball_margin": 1.0}, "ball_margin"),
        ({"ball_margin": -0.1}, "ball_margin"),
    ],
)
def test_bad_clips_are_named(arguments, name):
    with pytest.raises(ValueError, match=name):
        polar.from_tangent(torch.ones(1, 2), 1.0, **arguments)
