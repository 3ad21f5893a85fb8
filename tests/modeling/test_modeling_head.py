"""The hyperbolic head: scales, calibration and scores."""

from __future__ import annotations

import math

import poincare
import pytest
import torch
import torch.nn.functional as F

from hf_hierrobust.geometry import Polar, polar
from hf_hierrobust.modeling import HierHead
from hf_hierrobust.modeling.hier_head import matched_kappa

DIM = 32


def features(rows: int, seed: int, norm: float = 8.0) -> torch.Tensor:
    """Un-normalised embeddings around a common direction, as CLIP's are."""
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(rows, DIM, generator=generator) + 1.0
    spread = 1 + 0.1 * torch.rand(rows, 1, generator=generator)
    return norm * spread * F.normalize(raw, dim=1)


@pytest.fixture
def head() -> HierHead:
    head = HierHead(DIM)
    head.calibrate(features(64, 0, 2.0), features(4, 1, 2.5), torch.arange(64) % 4, 100.0)
    return head


def test_initial_values():
    head = HierHead(DIM, curvature=0.5)
    for scale in (head.log_image_scale, head.log_text_scale):
        assert scale.item() == pytest.approx(-0.5 * math.log(DIM)) and scale.requires_grad
    assert head.curvature == 0.5 and not head.calibrated
    assert head.kappa.isnan() and head.vic_radius.isnan()
    assert dict(head.named_parameters()).keys() == {"log_image_scale", "log_text_scale"}
    with pytest.raises(ValueError, match=r"curvature=-1 must be positive"):
        HierHead(DIM, curvature=-1)


def test_tangents_are_scaled_and_fp32():
    head, x = HierHead(DIM), features(5, 0)
    assert torch.allclose(head.image_tangent(x), x / math.sqrt(DIM))
    with torch.no_grad():
        head.log_text_scale.fill_(math.log(3))
    assert torch.allclose(head.text_tangent(x), 3 * x)
    assert head.image_tangent(x.bfloat16()).dtype == torch.float32


def test_lift_is_the_clipped_exponential_map():
    head = HierHead(DIM, curvature=0.25, max_tangent_norm=0.9)
    tangent = torch.stack([features(1, 0, 0.1)[0], features(1, 1, 50.0)[0]])
    lifted = head.lift(tangent)
    assert torch.allclose(lifted.radius[0], 2 * tangent[0].norm())
    assert torch.allclose(lifted.radius[1], torch.tensor(2 * 0.9 / 0.5))
    assert torch.allclose(head.ball_norm(lifted)[1], torch.tensor(0.9).tanh())


@pytest.mark.parametrize(
    ("a", "b", "kappa"),
    [
        (0.43, 0.36, 153.0),
        (0.1, 0.1, 611),
        (0.2, 0.2, 303),
        (0.3, 0.3, 200),
        (0.4, 0.4, 149),
        (0.5, 0.5, 119),
        (0.7, 0.7, 87),
    ],
)
def test_matched_kappa_golden_values(a, b, kappa):
    """Computed beforehand in float64: cosine 0.25, curvature -1, CLIP's multiplier 100."""
    tolerance = 0.05 if isinstance(kappa, float) else 0.5
    assert matched_kappa(a, b, 0.25, 1.0, 100.0) == pytest.approx(kappa, abs=tolerance)


def point(radius: float, angle: float, curvature: float) -> Polar:
    """Point of the ball at this Euclidean norm and angle, in float64."""
    direction = torch.tensor([[math.cos(angle), math.sin(angle)]], dtype=torch.float64)
    return poincare.from_ball(radius * direction, curvature)


@pytest.mark.parametrize("curvature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize(("a", "b", "cosine"), [(0.43, 0.36, 0.25), (0.2, 0.55, -0.4), (0.5, 0.1, 0.8)])
def test_matched_kappa_is_the_numerical_slope(a, b, cosine, curvature):
    def distance(c: float) -> float:
        return float(polar.distance(point(a, 0, curvature), point(b, math.acos(c), curvature), curvature))

    width = 1e-5
    slope = -(distance(cosine + width) - distance(cosine - width)) / (2 * width)
    assert matched_kappa(a, b, cosine, curvature, 37.0) == pytest.approx(37.0 / slope, rel=1e-5)


def test_kappa_makes_the_scores_as_steep_as_clips():
    """At the medians, d(-kappa d_r) / d cos = 100 as in ``100 cos``."""
    head = HierHead(2)
    head.calibrate(torch.tensor([[0.6, 0.0]]), torch.tensor([[0.3, 0.5]]), torch.tensor([0]), 100.0)
    angle = torch.tensor(math.atan2(0.5, 0.3), dtype=torch.float64)
    scores = []
    for cosine in (angle.cos() - 1e-3, angle.cos() + 1e-3):
        length = math.hypot(0.3, 0.5)
        text = torch.tensor([[cosine * length, (1 - cosine**2).sqrt() * length]])
        images = head.lift(head.image_tangent(torch.tensor([[0.6, 0.0]])).double())
        scores.append(head.logits(images, head.lift(head.text_tangent(text).double())))
    assert ((scores[1] - scores[0]) / 2e-3).item() == pytest.approx(100, rel=1e-3)


def test_calibrate_uses_batch_medians(head):
    """Against closed forms of the ball: tanh of half the distance to the origin, arcosh for the rest."""
    images, texts = features(64, 0, 2.0).double(), features(4, 1, 2.5).double()
    u = (images / math.sqrt(DIM)).norm(dim=1, keepdim=True).tanh() * F.normalize(images, dim=1)
    v = (texts / math.sqrt(DIM)).norm(dim=1, keepdim=True).tanh() * F.normalize(texts, dim=1)
    a, b = u.norm(dim=1).median().item(), v.norm(dim=1).median().item()
    cosine = (F.normalize(images, dim=1) @ F.normalize(texts, dim=1).T).median().item()
    assert head.kappa.item() == pytest.approx(matched_kappa(a, b, cosine, 1.0, 100.0), rel=1e-5)
    own = v[torch.arange(64) % 4]
    gap = (u - own).square().sum(1) / ((1 - u.square().sum(1)) * (1 - own.square().sum(1)))
    assert head.vic_radius.item() == pytest.approx(0.9 * (1 + 2 * gap).acosh().median().item(), rel=1e-5)
    assert head.log_image_scale.item() == pytest.approx(-0.5 * math.log(DIM))
    assert head.calibrated


def test_calibrate_to_a_tangent_norm():
    head = HierHead(DIM, tangent_norm=0.4, vic_factor=0.5)
    images, texts = features(64, 0, 40.0), features(4, 1, 0.01)
    head.calibrate(images, texts, torch.arange(64) % 4, 100.0)
    assert head.image_tangent(images).norm(dim=1).median().item() == pytest.approx(0.4, rel=1e-5)
    assert head.text_tangent(texts).norm(dim=1).median().item() == pytest.approx(0.4, rel=1e-5)
    assert head.log_image_scale.requires_grad


@pytest.mark.parametrize("value", [math.nan, 0.0])
def test_calibrate_refuses_embeddings_without_a_median_norm(value):
    head, texts = HierHead(DIM), features(4, 1, 1.0)
    with pytest.raises(ValueError, match=f"images' embeddings is {value:g}"):
        head.calibrate(torch.full((8, DIM), value), texts, torch.arange(8) % 4, 100.0)
    with pytest.raises(ValueError, match="level 0 cannot be placed"):
        head.calibrate(features(8, 0, 1.0), torch.full((4, DIM), value), torch.arange(8) % 4, 100.0)
    assert not head.calibrated


def test_logits_are_scaled_negative_distances(head):
    images, texts = (head.lift(head.image_tangent(features(n, n, 2.0))) for n in (6, 3))
    logits = head.logits(images, texts)
    assert logits.shape == (6, 3)
    assert torch.allclose(logits, -head.kappa * head.distance(images, texts))
    first = Polar(texts.direction[:1].expand(6, -1), texts.radius[:1].expand(6))
    assert torch.allclose(logits[:, 0], -head.kappa * head.own_distance(images, first), rtol=1e-4)


def test_uncalibrated_scores_are_refused():
    head = HierHead(DIM)
    points = head.lift(head.image_tangent(features(2, 0)))
    with pytest.raises(RuntimeError, match=r"the hyperbolic head is not calibrated: train with"):
        head.logits(points, points)
