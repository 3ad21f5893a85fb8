"""Gradients, precision guard and memory of the hyperbolic head."""

from __future__ import annotations

import poincare
import pytest
import torch
from torch.nn.functional import cosine_similarity, normalize
from torch.utils._python_dispatch import TorchDispatchMode

from hf_hierrobust.geometry import Polar, polar
from hf_hierrobust.geometry.precision import safe_norm

UNCLIPPED = {"max_tangent_norm": None, "ball_margin": None}


def sphere(n: int, dim: int, radius: float, seed: int = 0) -> torch.Tensor:
    """(n, dim) float64 tangent vectors at hyperbolic radius ``radius`` for curvature -1."""
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(n, dim, generator=generator, dtype=torch.float64)) * radius / 2


def ball_head(v, w, r):
    return poincare.pairwise_distance(poincare.exp0(v, r), poincare.exp0(w, r), r)


def ball_rows(v, w, r):
    return poincare.distance(poincare.exp0(v, r), poincare.exp0(w, r), r)


def polar_head(v, w, r):
    p, q = polar.from_tangent(v, r, **UNCLIPPED), polar.from_tangent(w, r, **UNCLIPPED)
    return polar.pairwise_distance(p, q, r)


def polar_rows(v, w, r):
    p, q = polar.from_tangent(v, r, **UNCLIPPED), polar.from_tangent(w, r, **UNCLIPPED)
    return polar.distance(p, q, r)


def ball_midpoint(v, w, r):
    return poincare.einstein_midpoint(poincare.exp0(torch.cat([v, w]), r), None, r)


def polar_midpoint(v, w, r):
    p = polar.from_tangent(torch.cat([v, w]), r, **UNCLIPPED)
    return poincare.to_tangent(poincare.polar_midpoint(p, torch.arange(len(p.radius)) % 2, 2, r))


def mobius_head(v, w, r):
    """The textbook form, kept here to document what the polar chart avoids."""
    u, t = poincare.exp0(v, r), poincare.exp0(w, r)
    moved = poincare.mobius_add(-u[:, None], t[None], r)
    return 2 * torch.atanh(moved.norm(dim=-1).clamp(max=1 - 1e-7))


FUNCTIONS = [ball_head, ball_rows, polar_head, polar_rows, ball_midpoint, polar_midpoint]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("radius", [0.8, 3.0, 7.6], ids="radius{}".format)
def test_gradcheck_including_the_curvature(function, radius):
    r = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)
    v = sphere(3, 4, radius).requires_grad_()
    w = sphere(3, 4, 0.9 * radius, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(function, (v, w, r), atol=1e-5, rtol=1e-4)


def test_gradcheck_of_the_maps():
    r = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    v = sphere(4, 3, 2.5).requires_grad_()
    u = poincare.exp0(v.detach(), 0.7).requires_grad_()
    for function in (poincare.log0, poincare.depth_radius, poincare.conformal_factor):
        assert torch.autograd.gradcheck(function, (u, r))
    assert torch.autograd.gradcheck(lambda x, c: poincare.clip_to_ball(x, c, 0.3), (u, r))
    assert torch.autograd.gradcheck(lambda x, c: poincare.mobius_add(x, x.flip(0), c), (u, r))
    assert torch.autograd.gradcheck(lambda x, c: tuple(poincare.from_ball(x, c)), (u, r))
    assert torch.autograd.gradcheck(lambda x, c: polar.from_tangent(x, c, max_tangent_norm=1.0), (v, r))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("radius", [0.0, 1e-30, 1e-12, 1.0, 7.6], ids="radius{}".format)
def test_coincident_points_have_finite_gradients(function, radius, dtype):
    v = sphere(3, 4, radius).to(dtype).requires_grad_()
    w = v.detach().clone().requires_grad_()
    r = torch.tensor(1.0, dtype=dtype, requires_grad=True)
    out = function(v, w, r)
    assert torch.isfinite(out).all()
    for grad in torch.autograd.grad(out.sum(), (v, w, r)):
        assert torch.isfinite(grad).all()


def test_maps_at_the_zero_vector():
    zero = torch.zeros(3, dtype=torch.float64)
    for function in (poincare.exp0, poincare.log0):
        jacobian = torch.autograd.functional.jacobian(lambda x, f=function: f(x, 0.5), zero)
        assert torch.equal(jacobian, torch.eye(3, dtype=torch.float64))
    for function in (safe_norm, lambda x: polar.from_tangent(x, 0.5).radius):
        assert torch.isfinite(torch.autograd.functional.hessian(function, zero)).all()
    assert torch.equal(poincare.clip_to_ball(zero, 1.0), zero)


def input_gradients(head, v, w, dtype):
    """Per-row gradient of cross-entropy over -10 d, what an attack on the image sees."""
    v = v.to(dtype).requires_grad_()
    scores = -10 * head(v, w.to(dtype), 1.0)
    loss = torch.nn.functional.cross_entropy(scores, torch.arange(len(v)) % len(w), reduction="sum")
    return torch.autograd.grad(loss, v)[0].double()


@pytest.mark.parametrize("radius", [2, 4, 6, 8, 10])
def test_fp32_polar_gradient_is_the_float64_gradient(radius):
    v, w = sphere(64, 32, radius), sphere(10, 32, radius, seed=1)
    exact = input_gradients(polar_head, v, w, torch.float64)
    assert cosine_similarity(exact, input_gradients(ball_head, v, w, torch.float64)).min() > 0.999999
    assert cosine_similarity(exact, input_gradients(polar_head, v, w, torch.float32)).min() >= 0.999


@pytest.mark.parametrize("radius", [8, 10])
def test_fp32_mobius_gradient_masks(radius):
    """Why the polar chart exists: this gradient is noise, and an attack along it reports false robustness."""
    v, w = sphere(64, 32, radius), sphere(10, 32, radius, seed=1)
    exact = input_gradients(polar_head, v, w, torch.float64)
    assert cosine_similarity(exact, input_gradients(mobius_head, v, w, torch.float32)).min() < 0.5


def test_autocast_and_half_inputs_do_not_lower_the_precision():
    v, w = sphere(5, 16, 3.0).float(), sphere(7, 16, 2.0, seed=1).float()
    for head in (polar_head, ball_head):
        expected = head(v, w, 1.0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert (v @ w.mT).dtype == torch.bfloat16, "autocast is active"
            actual = head(v, w, 1.0)
        assert torch.equal(actual, expected)
        for half in (torch.bfloat16, torch.float16):
            actual = head(v.to(half), w.to(half), 1.0)
            assert torch.equal(actual, head(v.to(half).float(), w.to(half).float(), 1.0))
            assert actual.dtype == torch.float32


def test_promotion_follows_arrays_and_not_the_curvature():
    v, w = sphere(2, 4, 1.0), sphere(3, 4, 1.0, seed=1)
    assert polar_head(v.float(), w.float(), torch.tensor(1.0, dtype=torch.float64)).dtype == torch.float32
    assert polar_head(v, w.float(), 1.0).dtype == torch.float64
    assert poincare.exp0(v.bfloat16(), torch.tensor(1.0, dtype=torch.bfloat16)).dtype == torch.float32


class Recorder(TorchDispatchMode):
    """Notes the largest tensor made and the types that enter matrix products."""

    def __init__(self):
        super().__init__()
        self.largest, self.product_dtypes = 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            self.product_dtypes |= {a.dtype for a in args if isinstance(a, torch.Tensor)}
        return out


@pytest.mark.parametrize("head", [polar_head, ball_head], ids=lambda f: f.__name__)
def test_no_tensor_of_size_m_n_d_forward_or_backward(head):
    m, n, d = 24, 32, 48
    v, w = sphere(m, d, 2.0).requires_grad_(), sphere(n, d, 2.0, seed=1).requires_grad_()
    with Recorder() as record:
        torch.autograd.grad(head(v, w, 1.0).sum(), (v, w))
    assert record.largest == max(m * n, m * d, n * d)
    with Recorder() as naive:
        mobius_head(v, w, 1.0)
    assert naive.largest == m * n * d, "the recorder sees what it looks for"


def test_midpoint_sums_make_nothing_larger_than_their_input():
    p = polar.from_tangent(sphere(40, 6, 2.0), 1.0)
    with Recorder() as record:
        poincare.polar_midpoint(p, torch.arange(40) % 5, 5, 1.0)
    assert record.largest == 40 * 6


@pytest.fixture(params=["high", "medium", "fp32_precision flags"])
def reduced_matmul(request):
    """Process-wide permission to run float32 products in TF32 or bfloat16."""
    if request.param in ("high", "medium"):
        torch.set_float32_matmul_precision(request.param)
        yield
        torch.set_float32_matmul_precision("highest")
        return
    matmul = torch.backends.cuda.matmul
    if not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("this torch has no fp32_precision flags")
    before, matmul.fp32_precision = matmul.fp32_precision, "tf32"
    yield
    matmul.fp32_precision = before


def products(head) -> set[torch.dtype]:
    v, w = sphere(5, 8, 2.0).float(), sphere(6, 8, 2.0, seed=1).float()
    with Recorder() as record:
        assert head(v, w, 1.0).dtype == torch.float32
    return record.product_dtypes


@pytest.mark.parametrize("head", [polar_head, ball_head], ids=lambda f: f.__name__)
def test_products_avoid_tf32(reduced_matmul, head):
    assert products(head) == {torch.float64}


@pytest.mark.parametrize("head", [polar_head, ball_head], ids=lambda f: f.__name__)
def test_products_are_fp32_by_default(head):
    assert torch.get_float32_matmul_precision() == "highest"
    assert products(head) == {torch.float32}


def test_near_points_keep_their_distance_row_wise():
    """An angle of 1e-3 at radius 6: the row-wise form keeps fp32 digits, the inner-product form does not."""
    v = sphere(16, 32, 6.0)
    w = normalize(v + 1e-3 * v.norm(dim=-1, keepdim=True) * sphere(16, 32, 2.0, seed=1)) * 3
    exact = polar_rows(v, w, 1.0)
    p, q = (Polar(normalize(x).float(), torch.full((16,), 6.0)) for x in (v, w))
    assert ((polar.distance(p, q, 1.0) - exact) / exact).abs().max() < 2e-4
    assert ((polar.pairwise_distance(p, q, 1.0).diagonal() - exact) / exact).abs().max() > 1e-3


def test_head_compiles_to_one_graph():
    v, w = sphere(4, 8, 2.0).float(), sphere(5, 8, 2.0, seed=1).float()
    compiled = torch.compile(polar_head, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(v, w, 1.0), polar_head(v, w, 1.0), rtol=1e-6, atol=1e-6)
    torch.compiler.reset()
