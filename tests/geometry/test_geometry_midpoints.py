"""Einstein midpoints and the additive (S, Z) roll-up, in both charts."""

from __future__ import annotations

import poincare
import pytest
import torch

from hf_hierrobust.geometry import Polar, polar


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_golden_values():
    u = vector(0.3, 0, 0, 0.4, -0.2, 0.5).view(3, 2)
    weights = vector(1, 2, 0.5)
    digits = {"rtol": 0, "atol": 6e-7}
    torch.testing.assert_close(
        poincare.einstein_midpoint(u, weights, 1.0), vector(0.042145, 0.291156), **digits
    )
    torch.testing.assert_close(
        poincare.einstein_midpoint(u, weights, 0.5), vector(0.050106, 0.295277), **digits
    )
    torch.testing.assert_close(poincare.einstein_midpoint(u, None, 1.0), vector(0.011844, 0.291379), **digits)
    collinear = poincare.einstein_midpoint(vector(0.2, 0, 0.9, 0).view(2, 2), None, 1.0)
    torch.testing.assert_close(collinear, vector(0.684470, 0), **digits)
    fan = poincare.einstein_midpoint(vector(0.5, 0, 0, 0.5, -0.5, 0).view(3, 2), None, 1.0)
    assert float(fan.norm()) == pytest.approx(0.1358, abs=5e-5)


def test_one_point_is_its_own_midpoint(space):
    u, r = space.points(), space.curvature
    space.close(poincare.einstein_midpoint(u[:, None], None, r), u)
    p = polar.from_tangent(space.tangents(max_norm=3.5), r)
    single = poincare.polar_midpoint(p, torch.arange(len(p.radius)), len(p.radius), r)
    space.close(single.radius, p.radius)
    space.close(single.direction, p.direction)


def test_two_equal_weights_give_the_geodesic_midpoint(space):
    u, v, r = space.points(), space.points(), space.curvature
    middle = poincare.einstein_midpoint(torch.stack([u, v], dim=1), None, r)
    whole = poincare.distance(u, v, r)
    space.close(poincare.distance(u, middle, r), whole / 2, factor=20)
    space.close(poincare.distance(v, middle, r), whole / 2, factor=20)


def test_norm_stays_below_the_largest(space):
    u = space.points(n=8 * 6).view(8, 6, -1)
    weights = torch.rand(8, 6, generator=space.generator, dtype=space.dtype)
    middle = poincare.einstein_midpoint(u, weights, space.curvature)
    assert (middle.norm(dim=-1) <= u.norm(dim=-1).amax(-1) + space.tolerance).all()


def test_equivariance_under_isometries(space):
    u, w, r = space.points(n=6), space.points(n=1), space.curvature
    weights = torch.rand(6, generator=space.generator, dtype=space.dtype)
    middle = poincare.einstein_midpoint(u, weights, r)
    moved = poincare.einstein_midpoint(poincare.mobius_add(w, u, r), weights, r)
    space.close(moved, poincare.mobius_add(w[0], middle, r), factor=20)
    q, _ = torch.linalg.qr(torch.randn(5, 5, generator=space.generator, dtype=space.dtype))
    space.close(poincare.einstein_midpoint(u @ q, weights, r), middle @ q, factor=5)


def test_both_charts_carry_the_same_sums(space):
    v, r = space.tangents(n=20), space.curvature
    index = torch.arange(20) % 4
    weights = torch.rand(20, generator=space.generator, dtype=space.dtype)
    in_ball = poincare.midpoint_sums(poincare.exp0(v, r), index, 4, r, weights)
    in_polar = polar.midpoint_sums(polar.from_tangent(v, r), index, 4, r, weights)
    for ball, angle in zip(in_ball, in_polar):
        assert ball.dtype == angle.dtype == torch.float64
        space.close(angle, ball, factor=20)
    middle = poincare.midpoint_from_sums(*in_ball, r)
    space.close(poincare.to_ball(polar.midpoint_from_sums(*in_polar, r), r), middle, factor=20)
    expected = [poincare.einstein_midpoint(poincare.exp0(v, r)[k::4], weights[k::4], r) for k in range(4)]
    space.close(middle.to(space.dtype), torch.stack(expected), factor=5)


def test_roll_up_of_sums_equals_the_direct_average(space):
    """20 points -> 6 leaves -> 2 parents. Adding sums is exact, averaging midpoints is not."""
    r = space.curvature
    p = polar.from_tangent(space.tangents(n=20), r)
    leaf = torch.randint(0, 6, (20,), generator=space.generator)
    leaf[:6] = torch.arange(6)
    parent = torch.tensor([0, 0, 0, 0, 1, 1])
    S, Z = polar.midpoint_sums(p, leaf, 6, r)
    rolled = polar.midpoint_from_sums(
        torch.zeros(2, 5, dtype=S.dtype).index_add(0, parent, S),
        torch.zeros(2, dtype=Z.dtype).index_add(0, parent, Z),
        r,
    )
    direct = poincare.polar_midpoint(p, parent[leaf], 2, r)
    torch.testing.assert_close(
        poincare.to_ball(rolled, r), poincare.to_ball(direct, r), rtol=0, atol=1e-6, check_dtype=False
    )
    leaves = polar.midpoint_from_sums(S, Z, r)
    naive = poincare.polar_midpoint(leaves, parent, 2, r)
    assert (poincare.to_ball(naive, r) - poincare.to_ball(direct, r)).abs().max() > 1e-4
    mass = poincare.invariant_mass(S, Z, r)
    weighted = poincare.polar_midpoint(leaves, parent, 2, r, weights=mass)
    torch.testing.assert_close(
        poincare.to_ball(weighted, r), poincare.to_ball(direct, r), rtol=0, atol=1e-6, check_dtype=False
    )


def test_small_curvature_gives_the_weighted_mean():
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(10, 4, generator=generator, dtype=torch.float64)
    weights = torch.rand(10, generator=generator, dtype=torch.float64)
    mean = (weights[:, None] * u).sum(0) / weights.sum()
    torch.testing.assert_close(poincare.einstein_midpoint(u, weights, 1e-10), mean, rtol=0, atol=1e-8)
    p = poincare.polar_midpoint(
        polar.from_tangent(u, 1e-10), torch.zeros(10, dtype=torch.long), 1, 1e-10, weights
    )
    torch.testing.assert_close(poincare.to_ball(p, 1e-10)[0], mean, rtol=0, atol=1e-8)


def test_empty_node_is_the_origin_with_finite_gradients():
    v = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    p = polar.from_tangent(v, 1.0)
    index = torch.tensor([0, 0, 2, 2])
    S, Z = polar.midpoint_sums(p, index, 3, 1.0)
    assert torch.equal(Z > 0, torch.tensor([True, False, True]))
    nodes = polar.midpoint_from_sums(S, Z, 1.0)
    assert nodes.radius[1] == 0 and (nodes.direction[1] == 0).all()
    polar.pairwise_distance(nodes, nodes, 1.0).sum().backward()
    assert torch.isfinite(v.grad).all() and v.grad.abs().sum() > 0
    ball = poincare.midpoint_from_sums(*poincare.midpoint_sums(poincare.to_ball(p, 1.0), index, 3, 1.0), 1.0)
    assert (ball[1] == 0).all() and torch.isfinite(ball).all()


def test_fp32_midpoint_keeps_the_radius_at_the_edge():
    """One clipped image per node is the common case; float32 sums would lose its radius altogether."""
    v = torch.randn(32, 64, generator=torch.Generator().manual_seed(0)) * 100
    p = polar.from_tangent(v, 1.0)
    own = poincare.polar_midpoint(p, torch.arange(32), 32, 1.0)
    assert own.radius.dtype == torch.float32
    torch.testing.assert_close(own.radius, p.radius, rtol=1e-6, atol=0)
    S, Z = torch.sinh(p.radius)[:, None] * p.direction, torch.cosh(p.radius)
    in_fp32 = torch.atanh((S.norm(dim=-1) / Z).clamp(max=1 - 1.2e-7))
    assert (in_fp32 - p.radius).abs().max() > 1e-2


def test_weights_and_index_must_match_the_points():
    p = Polar(torch.eye(3), torch.ones(3))
    with pytest.raises(ValueError, match="index must have one entry per point"):
        polar.midpoint_sums(p, torch.zeros(2, dtype=torch.long), 1, 1.0)
    with pytest.raises(ValueError, match="weights must have one entry per point"):
        polar.midpoint_sums(p, torch.zeros(3, dtype=torch.long), 1, 1.0, torch.ones(3, 1))
    with pytest.raises(ValueError, match="index must have one entry per point"):
        poincare.midpoint_sums(torch.zeros(3, 2), torch.zeros(2, dtype=torch.long), 1, 1.0)
    with pytest.raises(ValueError, match="weights must have one entry per point"):
        poincare.einstein_midpoint(torch.zeros(3, 2), torch.ones(2), 1.0)
