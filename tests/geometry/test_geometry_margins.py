"""Feasible margins by depth (Theorem 1 of arXiv 2604.18867, own derivation)."""

from __future__ import annotations

import math

import poincare
import pytest
import torch

from hf_hierrobust.geometry import (
    classification_margin,
    euclidean_margin,
    hyperbolic_margin,
    polar,
    robust_radius,
    simplex_margins,
)


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_golden_values():
    eta = vector(0.05, 0.5, 0.9, 0.99, 0.999, 0.99999)
    expected = vector(0.200167, 2.197225, 5.888878, 10.586609, 15.200805, 24.412135)
    torch.testing.assert_close(hyperbolic_margin(eta, 1.0), expected, rtol=0, atol=1e-6)
    flat = vector(0.005, 0.5, 1.62, 1.9602, 1.996, 2.0)
    torch.testing.assert_close(euclidean_margin(eta), flat, rtol=0, atol=5e-5)
    three, ten = simplex_margins(0.8, 3, 1.0), simplex_margins(0.8, 10, 1.0)
    torch.testing.assert_close(three.hyperbolic, torch.tensor(4.114848).double(), rtol=0, atol=6e-7)
    torch.testing.assert_close(ten.hyperbolic, torch.tensor(3.825897).double(), rtol=0, atol=6e-7)
    assert float(three.euclidean) == pytest.approx(0.96) and float(ten.euclidean) == pytest.approx(0.64 / 0.9)


def test_margin_is_linear_in_depth_and_the_odds_are_exponential(curvature):
    eta = torch.linspace(0.05, 0.99, 20, dtype=torch.float64) / curvature**0.5
    margin = hyperbolic_margin(eta, curvature, temperature=3.0)
    depth = poincare.depth_radius(eta[:, None], curvature)
    torch.testing.assert_close(margin, 2 * 3.0 * depth)
    root = curvature**0.5
    odds = ((1 + root * eta) / (1 - root * eta)) ** (2 * 3.0 / root)
    torch.testing.assert_close(margin.exp(), odds)
    assert (margin.diff() > 0).all(), "parents, nearer the origin, have smaller margins"


def test_hyperbolic_margin_is_unbounded_and_the_euclidean_one_is_not(curvature):
    gaps = 10.0 ** -torch.arange(1, 15, dtype=torch.float64)
    eta = (1 - gaps) / curvature**0.5
    growth = hyperbolic_margin(eta, curvature).diff()
    per_decade = 2 * math.log(10) / curvature**0.5
    torch.testing.assert_close(growth[3:], torch.full_like(growth[3:], per_decade), rtol=1e-2, atol=0)
    assert (euclidean_margin(eta) <= 2 / curvature).all()


def test_bound_holds_and_is_attained(curvature, seed):
    generator = torch.Generator().manual_seed(seed)
    eta = 0.8 / curvature**0.5
    unit = torch.nn.functional.normalize(torch.randn(30, 4, generator=generator, dtype=torch.float64))
    prototypes = eta * torch.cat([unit, -unit[:1]])
    features = 0.99 * torch.rand(200, 1, generator=generator, dtype=torch.float64) / curvature**0.5
    features = features * torch.nn.functional.normalize(
        torch.randn(200, 4, generator=generator, dtype=torch.float64)
    )
    scores = -5.0 * poincare.pairwise_distance(features, prototypes, curvature)
    spread = scores.amax(-1) - scores.amin(-1)  # the largest margin of any two prototypes
    bound = hyperbolic_margin(eta, curvature, temperature=5.0)
    assert (spread <= bound).all()
    attained = -5.0 * poincare.pairwise_distance(prototypes[:1], prototypes[[0, 30]], curvature)
    torch.testing.assert_close((attained[0, 0] - attained[0, 1]), bound, rtol=1e-5, atol=0)


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_simplex_margins_are_those_of_equiangular_prototypes(curvature, num_classes):
    eta = 0.7 / curvature**0.5
    unit = torch.nn.functional.normalize(torch.eye(num_classes, dtype=torch.float64) - 1 / num_classes)
    labels = torch.arange(num_classes)
    expected = simplex_margins(eta, num_classes, curvature, temperature=2.0)
    p = poincare.from_ball(eta * unit, curvature)
    scores = -2.0 * polar.pairwise_distance(p, p, curvature)
    actual = classification_margin(scores, labels)
    torch.testing.assert_close(actual, expected.hyperbolic.expand(num_classes), rtol=1e-5, atol=1e-5)
    inner = classification_margin(2.0 * eta**2 * unit @ unit.mT, labels)
    torch.testing.assert_close(inner, expected.euclidean.expand(num_classes))
    if num_classes == 2:
        torch.testing.assert_close(expected.hyperbolic, hyperbolic_margin(eta, curvature, 2.0))
        torch.testing.assert_close(expected.euclidean, euclidean_margin(eta, 2.0))


def test_no_prediction_changes_inside_the_robust_radius(curvature, seed):
    generator = torch.Generator().manual_seed(seed)
    temperature = 7.0
    features, noise = torch.randn(2, 400, 3, generator=generator, dtype=torch.float64) / curvature**0.5
    prototypes = torch.randn(5, 3, generator=generator, dtype=torch.float64) / curvature**0.5
    prototypes = poincare.exp0(prototypes, curvature)
    clean, moved = poincare.exp0(features, curvature), poincare.exp0(features + 0.3 * noise, curvature)
    scores = -temperature * poincare.pairwise_distance(clean, prototypes, curvature)
    labels = scores.argmax(-1)
    radius = robust_radius(classification_margin(scores, labels), temperature)
    after = (-temperature * poincare.pairwise_distance(moved, prototypes, curvature)).argmax(-1)
    certified = poincare.distance(clean, moved, curvature) < radius
    assert certified.any() and (after != labels).any()
    assert (after == labels)[certified].all()


def test_misclassified_points_have_no_radius():
    scores = torch.tensor([[1.0, 4.0], [4.0, 1.0]])
    margin = classification_margin(scores, torch.tensor([0, 0]))
    assert margin.tolist() == [-3.0, 3.0]
    assert robust_radius(margin, 2.0).tolist() == [0.0, 0.75]


def test_equal_prototype_norms_rank_like_the_cosine(curvature):
    generator = torch.Generator().manual_seed(0)
    features = poincare.exp0(torch.randn(100, 4, generator=generator, dtype=torch.float64), curvature)
    unit = torch.nn.functional.normalize(torch.randn(12, 4, generator=generator, dtype=torch.float64))
    by_cosine = (features @ unit.mT).argmax(-1)
    equal = poincare.pairwise_distance(features, 0.6 / curvature**0.5 * unit, curvature).argmin(-1)
    assert torch.equal(equal, by_cosine)
    depth = torch.linspace(0.1, 0.9, 12, dtype=torch.float64)[:, None] / curvature**0.5
    unequal = poincare.pairwise_distance(features, depth * unit, curvature).argmin(-1)
    assert not torch.equal(unequal, by_cosine)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"eta must lie in \[0, 0\.5\)"):
        hyperbolic_margin(0.5, 4.0)
    with pytest.raises(ValueError, match="eta must lie in"):
        euclidean_margin(-0.1)
    with pytest.raises(ValueError, match="temperature"):
        robust_radius(torch.ones(1), 0.0)
    with pytest.raises(ValueError, match="num_classes"):
        simplex_margins(0.1, 1, 1.0)
    with pytest.raises(ValueError, match="two classes"):
        classification_margin(torch.ones(2, 1), torch.zeros(2, dtype=torch.long))
