"""Pure loss functions shared by objectives; shapes in every docstring, no state."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry.precision import full_precision

FLAT = 1e-6
"""Range of a map of cosines, below which it is constant up to rounding."""


@full_precision
def cosine_logits(image_features: Tensor, text_features: Tensor, logit_scale: Tensor | float) -> Tensor:
    """CLIP logits ``s cos`` (B, N) in fp32 from un-normalised embeddings (B, D) and (N, D)."""
    return logit_scale * F.normalize(image_features, dim=-1) @ F.normalize(text_features, dim=-1).T


def masked_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    negatives: Tensor | None = None,
    excluded: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy over one level's nodes, with extra negatives from other levels.

    Args:
        logits: (M, K) scores against the level's nodes.
        labels: (M,) true node of each row.
        negatives: (M, J) scores against nodes of adjacent levels, or None.
        excluded: (M, J) True where such a node is joined to the row's true node by an edge: it is an
            ancestor or a descendant, no negative.
        reduction: ``"mean"`` or ``"sum"`` over the rows.
    """
    if negatives is not None:
        logits = torch.cat([logits, negatives.masked_fill(excluded, -torch.inf)], dim=1)
    return F.cross_entropy(logits, labels, reduction=reduction)


def hinge(values: Tensor, reduction: str = "mean") -> Tensor:
    """Mean or sum of ``max(0, value)``; zero for no values, so that a level without edges costs nothing."""
    return F.relu(values).mean() if values.numel() and reduction == "mean" else F.relu(values).sum()


def kl_divergence(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    """``KL(p || q)`` (B,) of the softmaxes of two logits (B, K); gradients flow into both."""
    p, q = F.log_softmax(logits_p, dim=-1), F.log_softmax(logits_q, dim=-1)
    return F.kl_div(q, p, reduction="none", log_target=True).sum(-1)


@full_precision
def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """``|a - b|^2`` (B,) of embeddings (B, D): the sum over D, not the mean."""
    return (a - b).square().sum(-1)


@full_precision
def attention_maps(patches: Tensor, texts: Tensor, resolution: int, token_norm: bool = False) -> Tensor:
    """Text-guided attention maps (B, resolution^2) of TGA-ZSR (2410.21802), each scaled to [0, 1].

    The cosine of every patch with the image's text, min-max scaled over the patches, enlarged bilinearly.
    A map that is constant up to rounding has no range to scale by: it is 0 everywhere, without gradient.

    Args:
        patches: (B, P, D) projected patch tokens of square images.
        texts: (B, D) the text of each image.
        resolution: edge of the enlarged maps.
        token_norm: divide each channel by its norm over the P patches, in place of each patch by its norm
            over D (OC-19).

    Raises:
        ValueError: P is no square number.
    """
    side = math.isqrt(patches.shape[1])
    if side * side != patches.shape[1]:
        raise ValueError(f"{patches.shape[1]} patch tokens are not those of a square image")
    patches = F.normalize(patches, dim=1 if token_norm else 2)
    maps = (patches @ F.normalize(texts, dim=-1).unsqueeze(-1)).squeeze(-1)
    low, high = maps.amin(1, keepdim=True), maps.amax(1, keepdim=True)
    flat = high - low < FLAT
    maps = ((maps - low) / (high - low).masked_fill(flat, 1)).masked_fill(flat, 0)
    maps = maps.view(-1, 1, side, side)
    return F.interpolate(maps, size=(resolution, resolution), mode="bilinear").flatten(1)
