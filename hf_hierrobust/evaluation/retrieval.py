"""Image-text retrieval: ranks and recalls, and how pixels and captions are attacked for them.

Scores are cosines. Equal captions are one caption with several images. A tie counts against the query: what
an attack brought level with the truth has not been told apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..attacks import EmbeddingPGD, TextAttack
from ..attacks.image.steps import ascend, start
from ..modeling import TextEncoder
from ..threat import ThreatModel

RECALLS = (1, 5, 10)
CHUNK = 1024


@dataclass(frozen=True)
class Pairs:
    """Which of M different captions belong to which of N images.

    Attributes:
        captions: M texts.
        links: (P, 2), image and caption of each pair.
    """

    num_images: int
    captions: list[str]
    links: Tensor

    @classmethod
    def of(cls, captions: Sequence[Sequence[str]]) -> Pairs:
        """Of each image's captions."""
        place: dict[str, int] = {}
        links = {
            (image, place.setdefault(text, len(place))) for image, row in enumerate(captions) for text in row
        }
        return cls(len(captions), list(place), torch.tensor(sorted(links)))

    def turned(self) -> Tensor:
        """(P, 2), caption and image."""
        return self.links.flip(1)


def ranks(queries: Tensor, gallery: Tensor, links: Tensor) -> Tensor:
    """(Q,) how many foreign entries of the gallery score at least as much as the best own one.

    Args:
        queries, gallery: (Q, D) and (G, D) unit embeddings.
        links: (P, 2), each query's own entries; every query has one.
    """
    found = []
    for first in range(0, len(queries), CHUNK):
        part = queries[first : first + CHUNK]
        found.append(
            _rank(part @ gallery.T, own_entries(links, first, len(part), len(gallery), part.device))[0]
        )
    return torch.cat(found)


def recalls(found: Tensor) -> dict[str, float]:
    """Fraction of the queries among whose 1, 5 and 10 best an own entry is; ranks start at 0."""
    return {str(k): int((found < k).sum()) / len(found) for k in RECALLS}


def attack_pixels(
    encode: Callable[[Tensor], Tensor],
    pixels: Tensor,
    texts: Tensor,
    own: Tensor,
    threat: ThreatModel,
    *,
    num_steps: int = 20,
    step_size: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Unit embeddings (B, D) of the perturbed images whose own captions rank worst.

    PGD on the margin, the best foreign caption's cosine minus the best own one's, from a uniform start. Of
    the iterates, the clean image among them, that of the highest rank counts, and of equal ones that of the
    largest margin. The other direction is attacked by the same pixels: they leave their captions' side.

    Args:
        encode: pixels (B, 3, H, W) in [0, 1] to unit embeddings, with its graph.
        texts: (M, D) unit embeddings of the captions.
        own: (B, M) bool.
        step_size: in pixel scale; None is eps/4.
    """
    size = threat.eps / 4 if step_size is None else step_size
    with torch.no_grad():
        best = encode(pixels)
        rank, margin = _rank(best @ texts.T, own)
    delta = start(threat, pixels, "uniform", generator)
    for step in range(num_steps + 1):
        with torch.enable_grad():
            x = (pixels + delta).requires_grad_()
            features = encode(x)
            new_rank, new_margin = _rank(features @ texts.T, own)
            if step < num_steps:
                (gradient,) = torch.autograd.grad(new_margin.sum(), x)
        worse = (new_rank > rank) | ((new_rank == rank) & (new_margin.detach() > margin))
        best = torch.where(worse[:, None], features.detach(), best)
        rank, margin = torch.where(worse, new_rank, rank), torch.where(worse, new_margin.detach(), margin)
        if step < num_steps:
            delta = ascend(threat, delta, gradient, pixels, size)
    return best


def attack_captions(
    attack: TextAttack | EmbeddingPGD,
    encoder: TextEncoder,
    pairs: Pairs,
    images: Tensor,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Unit embeddings (M, D) of captions changed to lower the cosine to the mean direction of their images.

    Args:
        images: (N, D) unit embeddings of the clean images.
    """
    sums = torch.zeros(len(pairs.captions), images.shape[1], device=images.device)
    sums.index_add_(0, pairs.links[:, 1].to(images.device), images[pairs.links[:, 0].to(images.device)])
    anchors = F.normalize(sums, dim=-1)

    def away(embeddings: Tensor, index: Tensor) -> Tensor:
        return -(F.normalize(embeddings.float(), dim=-1) * anchors[index]).sum(-1)

    found = attack(pairs.captions, encoder, score=away, generator=generator)
    features = found.features if isinstance(attack, EmbeddingPGD) else encoder(found.texts)
    return F.normalize(features.detach().float(), dim=-1)


def own_entries(links: Tensor, first: int, count: int, width: int, device: torch.device) -> Tensor:
    """(count, width) bool: the own entries of the queries from ``first`` on."""
    mask = torch.zeros(count, width, dtype=torch.bool, device=device)
    part = links[(links[:, 0] >= first) & (links[:, 0] < first + count)].to(device)
    mask[part[:, 0] - first, part[:, 1]] = True
    return mask


def _rank(scores: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Rank (B,) of the best own entry, and the best foreign score minus its score."""
    best = scores.masked_fill(~own, -torch.inf).amax(-1)
    foreign = scores.masked_fill(own, -torch.inf)
    return (foreign >= best[:, None]).sum(-1), foreign.amax(-1) - best
