"""Identities of the Poincaré ball (methods of arXiv 2604.18867) and geoopt as an independent oracle."""

from __future__ import annotations

import geoopt
import poincare
import pytest
import torch


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def assert_digits(actual: torch.Tensor, *expected: float) -> None:
    torch.testing.assert_close(actual, vector(*expected).reshape(actual.shape), rtol=0, atol=6e-7)


def test_golden_values():
    u, v = vector(0.3, 0), vector(0, 0.4)
    assert_digits(poincare.mobius_add(u, v, 1.0), 0.343060, 0.358833)
    assert_digits(poincare.mobius_add(v, u, 1.0), 0.248423, 0.429811)
    assert_digits(poincare.distance(u, v, 1.0), 1.089137)
    assert_digits(poincare.distance(u, v, 0.5), 1.043050)
    assert_digits(poincare.exp0(vector(0.3, 0.4), 1.0), 0.277270, 0.369694)
    assert_digits(poincare.exp0(vector(0.3, 0.4), 0.5), 0.288095, 0.384127)
    image, text = vector(0.43, 0), 0.36 * vector(0.25, (1 - 0.25**2) ** 0.5)
    assert float(poincare.distance(image, text, 1.0)) == pytest.approx(1.0999, abs=5e-5)


def test_exp_and_log_are_inverse(space):
    v = space.tangents(max_norm=2.0)
    space.close(poincare.log0(poincare.exp0(v, space.curvature), space.curvature), v, factor=5)
    u = space.points()
    space.close(poincare.exp0(poincare.log0(u, space.curvature), space.curvature), u)


def test_depth_is_twice_the_tangent_norm(space):
    v = space.tangents()
    u = poincare.exp0(v, space.curvature)
    space.close(poincare.depth_radius(u, space.curvature), 2 * v.norm(dim=-1), factor=5)
    space.close(poincare.distance(torch.zeros_like(u), u, space.curvature), 2 * v.norm(dim=-1), factor=5)


def test_left_cancellation_and_commuting_norms(space):
    u, v, r = space.points(), space.points(), space.curvature
    both = poincare.mobius_add(u, v, r)
    space.close(poincare.mobius_add(-u, both, r), v, factor=5)
    space.close(both.norm(dim=-1), poincare.mobius_add(v, u, r).norm(dim=-1), factor=5)
    assert (both - poincare.mobius_add(v, u, r)).norm(dim=-1).max() > 1e-2, "Möbius addition does not commute"


def test_distance_is_a_metric(space):
    u, v, w = (space.points() for _ in range(3))
    r = space.curvature
    d_uv, d_vw, d_uw = poincare.distance(u, v, r), poincare.distance(v, w, r), poincare.distance(u, w, r)
    space.close(d_uv, poincare.distance(v, u, r))
    assert (d_uv > 0).all()
    assert (d_uw <= d_uv + d_vw + space.tolerance).all()
    torch.testing.assert_close(poincare.distance(u, u, r), torch.full_like(d_uv, 2e-6), rtol=1e-3, atol=0)


def test_the_three_forms_of_the_distance_agree(space):
    u, v, r = space.points(), space.points(), space.curvature
    actual = poincare.distance(u, v, r)
    through_sum = 2 / r**0.5 * torch.atanh(r**0.5 * poincare.mobius_add(-u, v, r).norm(dim=-1))
    gaps = (1 - r * u.square().sum(-1)) * (1 - r * v.square().sum(-1))
    arcosh = torch.acosh(1 + 2 * r * (u - v).square().sum(-1) / gaps) / r**0.5
    space.close(actual, through_sum, factor=10)
    space.close(actual, arcosh, factor=100)  # arcosh loses half the digits of small distances


def test_distance_is_invariant_under_isometries(space):
    u, v, w = space.points(), space.points(), space.points(n=1)
    r = space.curvature
    expected = poincare.distance(u, v, r)
    moved = poincare.distance(poincare.mobius_add(w, u, r), poincare.mobius_add(w, v, r), r)
    space.close(moved, expected, factor=20)
    q, _ = torch.linalg.qr(torch.randn(5, 5, generator=space.generator, dtype=space.dtype))
    space.close(poincare.distance(u @ q, v @ q, r), expected, factor=5)


def test_pairwise_equals_row_wise(space):
    u, v, r = space.points(n=7), space.points(n=9), space.curvature
    rows = poincare.distance(u[:, None], v[None], r)
    space.close(poincare.pairwise_distance(u, v, r), rows, factor=20)


def test_small_curvature_is_flat():
    generator = torch.Generator().manual_seed(0)
    u, v = torch.randn(2, 20, 4, generator=generator, dtype=torch.float64)
    r = 1e-10
    flat = {"rtol": 0, "atol": 1e-7}
    torch.testing.assert_close(poincare.exp0(u, r), u, **flat)
    torch.testing.assert_close(poincare.log0(u, r), u, **flat)
    torch.testing.assert_close(poincare.mobius_add(u, v, r), u + v, **flat)
    torch.testing.assert_close(poincare.distance(u, v, r), 2 * (u - v).norm(dim=-1), **flat)
    torch.testing.assert_close(poincare.conformal_factor(u, r), torch.full((20,), 2.0).double(), **flat)


def test_clip_to_ball(space):
    v = space.tangents(n=200, max_norm=6.0)
    u, r = poincare.exp0(v, space.curvature), space.curvature
    clipped = poincare.clip_to_ball(u, r, margin=1e-2)
    limit = (1 - 1e-2) / r**0.5
    outside = u.norm(dim=-1) > limit
    assert outside.any() and not outside.all()
    assert torch.equal(clipped[~outside], u[~outside])
    space.close(clipped[outside].norm(dim=-1), torch.full_like(u[outside, 0], limit))
    space.close(torch.cosine_similarity(clipped, u), torch.ones_like(u[:, 0]))


def test_geoopt_agrees(curvature, seed):
    """Same curvature, same metric factor: geoopt's distance to the origin is also 2|v|."""
    ball = geoopt.PoincareBall(c=torch.tensor(curvature, dtype=torch.float64))
    generator = torch.Generator().manual_seed(seed)
    v, w = torch.randn(2, 12, 4, generator=generator, dtype=torch.float64) * 0.4 / curvature**0.5
    weights = torch.rand(12, generator=generator, dtype=torch.float64)
    a, b = poincare.exp0(v, curvature), poincare.exp0(w, curvature)
    same = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(a, ball.expmap0(v), **same)
    torch.testing.assert_close(poincare.log0(a, curvature), ball.logmap0(a), **same)
    torch.testing.assert_close(poincare.mobius_add(a, b, curvature), ball.mobius_add(a, b), **same)
    torch.testing.assert_close(poincare.distance(a, b, curvature), ball.dist(a, b), **same)
    torch.testing.assert_close(poincare.pairwise_distance(a, b, curvature), ball.dist(a[:, None], b), **same)
    torch.testing.assert_close(poincare.depth_radius(a, curvature), ball.dist0(a), **same)
    torch.testing.assert_close(poincare.conformal_factor(a, curvature), ball.lambda_x(a), **same)
    midpoint = ball.weighted_midpoint(a, weights, reducedim=[0])
    torch.testing.assert_close(poincare.einstein_midpoint(a, weights, curvature), midpoint, **same)


@pytest.mark.parametrize("norm", [0.999, 0.9999, 0.999999])
def test_fp32_antipodes_near_the_edge(norm):
    u = torch.tensor([[norm, 0.0]])
    exact = poincare.distance(u.double(), -u.double(), 1.0).float()
    torch.testing.assert_close(poincare.distance(u, -u, 1.0), exact, rtol=1e-3, atol=0)
    torch.testing.assert_close(poincare.pairwise_distance(u, -u, 1.0)[0], exact, rtol=1e-3, atol=0)


def test_fp32_artanh_and_arcosh_forms_fail_where_arsinh_holds():
    far = torch.tensor([0.9999, 0.0])
    assert torch.isinf(2 * torch.atanh(poincare.mobius_add(far, far, 1.0).norm()))
    near = torch.tensor([0.3, 0.0]), torch.tensor([0.3, 1e-4])
    gaps = (1 - near[0].square().sum()) * (1 - near[1].square().sum())
    assert torch.acosh(1 + 2 * (near[0] - near[1]).square().sum() / gaps) == 0
    exact = poincare.distance(near[0].double(), near[1].double(), 1.0).float()
    torch.testing.assert_close(poincare.distance(*near, 1.0), exact, rtol=1e-5, atol=0)


def test_fp32_pairwise_error_at_the_initial_scale():
    generator = torch.Generator().manual_seed(0)
    u = torch.nn.functional.normalize(torch.randn(64, 512, generator=generator)) * 0.4
    exact = poincare.pairwise_distance(u.double(), u.flip(0).double(), 1.0)
    off_diagonal = exact > 1e-3
    error = (poincare.pairwise_distance(u, u.flip(0), 1.0) - exact).abs()[off_diagonal]
    assert error.max() < 7e-5


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf"), torch.tensor(-1.0)])
def test_curvature_must_be_positive(bad):
    with pytest.raises(ValueError, match="curvature must be positive"):
        poincare.exp0(torch.ones(2), bad)


def test_arguments_of_the_wrong_type():
    with pytest.raises(TypeError, match="0-dim"):
        poincare.exp0(torch.ones(2), torch.ones(1))
    with pytest.raises(TypeError, match="str"):
        poincare.exp0(torch.ones(2), "1")
    with pytest.raises(ValueError, match="margin must lie in"):
        poincare.clip_to_ball(torch.ones(2), 1.0, margin=1.0)
