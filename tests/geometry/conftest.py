"""Random ball points over the grid of curvatures, types and seeds that the identities are tested on."""

from __future__ import annotations

from typing import NamedTuple

import poincare
import pytest
import torch


class Space(NamedTuple):
    curvature: float
    dtype: torch.dtype
    generator: torch.Generator
    tolerance: float

    def tangents(self, n: int = 16, dim: int = 5, max_norm: float = 1.2) -> torch.Tensor:
        """(n, dim) tangent vectors with sqrt(r)|v| spread over (0, max_norm)."""
        v = torch.randn(n, dim, generator=self.generator, dtype=torch.float64)
        lengths = max_norm * torch.rand(n, 1, generator=self.generator, dtype=torch.float64)
        return (lengths * v / v.norm(dim=-1, keepdim=True) / self.curvature**0.5).to(self.dtype)

    def points(self, n: int = 16, dim: int = 5, max_norm: float = 1.2) -> torch.Tensor:
        return poincare.exp0(self.tangents(n, dim, max_norm), self.curvature)

    def close(self, actual: torch.Tensor, expected: torch.Tensor, factor: float = 1.0) -> None:
        tolerance = factor * self.tolerance
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.fixture(params=[0, 1], ids="seed{}".format)
def seed(request) -> int:
    return request.param


@pytest.fixture(params=[0.1, 0.5, 1.0, 2.0], ids="r{}".format)
def curvature(request) -> float:
    return request.param


@pytest.fixture(params=[torch.float32, torch.float64], ids=["fp32", "fp64"])
def space(request, curvature, seed) -> Space:
    tolerance = 2e-5 if request.param == torch.float32 else 1e-10
    return Space(curvature, request.param, torch.Generator().manual_seed(seed), tolerance)
