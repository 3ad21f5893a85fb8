"""Pure loss functions shared by objectives; shapes in every docstring, no state."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_logits(image_features: Tensor, text_features: Tensor, logit_scale: Tensor | float) -> Tensor:
    """CLIP logits ``s cos`` (B, N) in fp32 from un-normalised embeddings (B, D) and (N, D)."""
    images = F.normalize(image_features.float(), dim=-1)
    texts = F.normalize(text_features.float(), dim=-1)
    return logit_scale * images @ texts.T


def masked_cross_entropy(
    logits: Tensor, labels: Tensor, negatives: Tensor | None = None, excluded: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy over one level's nodes, with extra negatives from other levels.

    Args:
        logits: (M, K) scores against the level's nodes.
        labels: (M,) true node of each row.
        negatives: (M, J) scores against nodes of adjacent levels, or None.
        excluded: (M, J) True where such a node is joined to the row's true node by an edge: it is an
            ancestor or a descendant, no negative.
    """
    if negatives is not None:
        logits = torch.cat([logits, negatives.masked_fill(excluded, -torch.inf)], dim=1)
    return F.cross_entropy(logits, labels)


def hinge(values: Tensor) -> Tensor:
    """Mean of ``max(0, value)``; zero for no values, so that a level without edges costs nothing."""
    return F.relu(values).mean() if values.numel() else values.sum()
