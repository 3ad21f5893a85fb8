"""A float64 batch of image-caption pairs, and MMCoA's and AdvFLYP's equations one pair at a time."""

from __future__ import annotations

import torch
from flat_batch import log_softmax
from torch import Tensor

from hf_hierrobust.objectives import Reference, Targets, View

CLASSES, DIM, SCALE = ("cat", "dog", "oak"), 5, 6.0
LABELS = [0, 2, 1, 0, 0, 1]
TRAINED = ("texts", "attacked", "clean", "captions", "attacked_captions", "scale")


class PairBatch:
    """Embeddings of ``attacked`` and ``clean`` images, ``captions`` and ``attacked_captions``, (B, D) each.

    ``original_attacked`` (B, D) are the attacked images by the original model, ``original_captions`` (B, D)
    its embeddings of the captions, ``texts`` (K, D) the classes.
    All in TRAINED have gradients.

    Args:
        captions: ``"prompts"``: every image's caption is its class prompt; ``"own"``: all captions differ.
    """

    def __init__(self, captions: str = "prompts", labels=LABELS, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        count = len(labels)
        self.labels, self.texts = torch.tensor(labels), draw(len(CLASSES), DIM).requires_grad_()
        self.attacked, self.clean = draw(count, DIM), draw(count, DIM)
        self.captions = self.texts[self.labels] if captions == "prompts" else draw(count, DIM)
        self.attacked_captions, self.original_attacked = draw(count, DIM), draw(count, DIM)
        self.scale = torch.tensor(SCALE, dtype=torch.float64)
        self.original_captions = draw(count, DIM)
        for name in TRAINED:
            getattr(self, name).requires_grad_()

    @property
    def leaves(self) -> list[Tensor]:
        return [getattr(self, name) for name in TRAINED]

    def view(self, images: Tensor | None = None, nodes: bool = False) -> View:
        """The attacked view, or one of other images; a view without text nodes, as a trained tower's is."""
        images, texts = self.attacked if images is None else images, self.texts if nodes else self.texts[:0]
        return View(
            images,
            texts,
            images,
            texts,
            self.scale,
            None,
            caption_features=self.captions,
            attacked_caption_features=self.attacked_captions,
        )

    def targets(self) -> Targets:
        original = Reference(
            self.original_attacked,
            self.texts,
            self.scale.detach(),
            caption_features=self.original_captions,
        )
        return Targets(self.labels, attacked_reference=(original,), clean=self.view(self.clean))


def cosine(u: Tensor, v: Tensor) -> Tensor:
    return u @ v / ((u @ u).sqrt() * (v @ v).sqrt())


def positives_of(batch: PairBatch, kind: str) -> list[list[int]]:
    """Numbers of each pair's positives."""
    labels, everyone = batch.labels.tolist(), range(len(batch.labels))
    same = {"class": lambda i, j: labels[i] == labels[j], "diagonal": lambda i, j: i == j}[kind]
    return [[j for j in everyone if same(i, j)] for i in everyone]


def one_way(rows: Tensor, columns: Tensor, scale: Tensor, positives: list[list[int]]) -> list[Tensor]:
    """Cross-entropy of each row's logits to the uniform distribution over its positives."""
    losses = []
    for row, mine in zip(rows, positives):
        log_p = log_softmax([scale * cosine(row, column) for column in columns])
        losses.append(-sum(log_p[j] for j in mine) / len(mine))
    return losses


def both_ways(images: Tensor, texts: Tensor, scale: Tensor, positives: list[list[int]]) -> Tensor:
    to_texts, to_images = one_way(images, texts, scale, positives), one_way(texts, images, scale, positives)
    return sum(to_texts + to_images) / len(to_texts)
