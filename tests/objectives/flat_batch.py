"""A float64 batch made by hand for objectives without a tree, and what their references have in common."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_hierrobust.objectives import Reference, Targets, View

CLASSES = ("cat", "dog", "oak", "rose")
BATCH, CLASS_COUNT, DIM, PATCHES, SCALE = 5, len(CLASSES), 6, 9, 7.0


@dataclass
class FlatBatch:
    """Features (B, D), patches (B, P, D), text (2 K, D): class prompts, then further ones.

    ``attacked``, ``clean`` and their patches are the trained model's and have gradients; ``original`` and its
    patches are the frozen model's on the clean images, ``original_attacked`` on the attacked.
    """

    attacked: Tensor
    clean: Tensor
    attacked_patches: Tensor
    clean_patches: Tensor
    original: Tensor
    original_attacked: Tensor
    original_patches: Tensor
    texts: Tensor
    labels: Tensor
    scale: float = SCALE

    @property
    def leaves(self) -> list[Tensor]:
        return [self.attacked, self.clean, self.attacked_patches, self.clean_patches]

    def view(self, features: Tensor | None = None, patches: Tensor | None = None) -> View:
        """The attacked view, or one of other features."""
        features = self.attacked if features is None else features
        patches = self.attacked_patches if patches is None else patches
        scale = torch.tensor(self.scale, dtype=torch.float64)
        return View(features, self.texts, features, self.texts, scale, None, patch_features=patches)

    def targets(self) -> Targets:
        scale = torch.tensor(self.scale, dtype=torch.float64)
        return Targets(
            self.labels,
            reference=Reference(self.original, self.texts, scale, self.original_patches),
            attacked_reference=(Reference(self.original_attacked, self.texts, scale),),
            clean=self.view(self.clean, self.clean_patches),
        )

    def attack_targets(self) -> Targets:
        """What exists while the attack runs."""
        return self.targets()._replace(attacked_reference=None, clean=None)


def make_batch(seed: int = 0) -> FlatBatch:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape, trained=False):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(trained)

    return FlatBatch(
        attacked=draw(BATCH, DIM, trained=True),
        clean=draw(BATCH, DIM, trained=True),
        attacked_patches=draw(BATCH, PATCHES, DIM, trained=True),
        clean_patches=draw(BATCH, PATCHES, DIM, trained=True),
        original=draw(BATCH, DIM),
        original_attacked=draw(BATCH, DIM),
        original_patches=draw(BATCH, PATCHES, DIM),
        texts=draw(2 * CLASS_COUNT, DIM),
        labels=torch.tensor([0, 3, 1, 1, 2]),
    )


def assert_same(loss: Tensor, expected: Tensor, leaves: list[Tensor]) -> None:
    """Equal values and equal gradients towards all leaves, of which one at least is not zero."""
    torch.testing.assert_close(loss, expected, atol=1e-9, rtol=1e-9)
    ours, theirs = (
        torch.autograd.grad(value, leaves, retain_graph=True, materialize_grads=True)
        for value in (loss, expected)
    )
    assert max(float(g.abs().max()) for g in theirs) > 1e-4, "the gradient tests nothing"
    for mine, other in zip(ours, theirs):
        torch.testing.assert_close(mine, other, atol=1e-9, rtol=1e-7)


# ---- the references' common parts: one image, one class at a time ----


def cosine(u: Tensor, v: Tensor) -> Tensor:
    return (u * v).sum() / (math.sqrt(float(v @ v)) * (u @ u).sqrt())


def log_softmax(scores: list[Tensor]) -> list[Tensor]:
    total = sum(score.exp() for score in scores).log()
    return [score - total for score in scores]


def log_probabilities(feature: Tensor, texts: Tensor, scale: float) -> list[Tensor]:
    return log_softmax([scale * cosine(feature, text) for text in texts[:CLASS_COUNT]])


def cross_entropy(features: Tensor, texts: Tensor, labels: Tensor, scale: float) -> Tensor:
    values = [-log_probabilities(f, texts, scale)[y] for f, y in zip(features, labels.tolist())]
    return sum(values) / len(values)
