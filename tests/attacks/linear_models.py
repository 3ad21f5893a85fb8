"""Linear classifiers, for which the smallest perturbation and the exact robust accuracy are known."""

from __future__ import annotations

import torch
from torch import Tensor


class Linear:
    """Logits ``x W + b`` of K classes on images (B, C, H, W), centred so that all classes are predicted."""

    def __init__(self, shape=(1, 6, 6), classes: int = 12, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        size = shape[0] * shape[1] * shape[2]
        self.weight = torch.randn(size, classes, generator=generator)
        self.bias = -0.5 * self.weight.sum(0)
        self.shape = shape

    def __call__(self, pixels: Tensor) -> Tensor:
        return pixels.flatten(1) @ self.weight.to(pixels.dtype) + self.bias.to(pixels.dtype)

    def images(self, count: int, low: float = 0.0, high: float = 1.0, seed: int = 1) -> tuple[Tensor, Tensor]:
        """Images with pixels in [low, high], and the class of each."""
        pixels = torch.rand(count, *self.shape, generator=torch.Generator().manual_seed(seed))
        pixels = low + (high - low) * pixels
        return pixels, self(pixels).argmax(1)

    def distance(self, pixels: Tensor, labels: Tensor, norm: str) -> Tensor:
        """Exact distance (B,) of each image to the nearest misclassified one in [0, 1], by bisection."""
        x, weight = pixels.flatten(1).double(), self.weight.double()
        logits = x @ weight + self.bias.double()
        best = torch.full((len(x),), torch.inf, dtype=torch.float64)
        for other in range(weight.shape[1]):
            normal = (weight[:, other, None] - weight[:, labels]).T  # (B, D)
            need = logits.gather(1, labels[:, None])[:, 0] - logits[:, other]
            room = torch.where(normal > 0, 1 - x, x)
            unit = torch.ones_like(normal) if norm == "linf" else normal.abs()

            def moves(scale, unit=unit, room=room):
                return torch.minimum(scale[:, None] * unit, room)

            low, high = torch.zeros_like(need), torch.full_like(need, 1e3)
            for _ in range(80):
                middle = (low + high) / 2
                enough = (normal.abs() * moves(middle)).sum(1) >= need
                low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
            move = moves(high)
            size = move.amax(1) if norm == "linf" else move.norm(dim=1)
            reached = (normal.abs() * move).sum(1) >= need * (1 - 1e-9)
            best = torch.where((labels != other) & reached, torch.minimum(best, size), best)
        return best
