"""Pre-training losses over image-text pairs of a batch, with several positives a row; pure functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .collectives import rank
from .losses import cosine_logits

Positives = Literal["class", "diagonal"]
POSITIVES: tuple[str, ...] = ("class", "diagonal")
Gather = Callable[[Tensor], Tensor]


def own_rows(rows: Tensor) -> Tensor:
    """The gather of one process: its own rows."""
    return rows


def positive_pairs(positives: Positives, labels: Tensor, gather: Gather = own_rows) -> Tensor:
    """Which pairs of the batch belong together: bool (B, M), row i against the M gathered pairs.

    Copies of one caption need no option of their own: summed over the batch, the softmax losses of rows and
    columns that are equal are the same under ``"diagonal"`` as under a target shared by the copies. For
    sigmoids see `sigmoid_pairs`.

    Args:
        positives: ``"class"``: pairs of one label; ``"diagonal"``: only the pair itself.
        labels: (B,).
        gather: rows of this process to those of all, see `collectives.gather_over_ranks`.
    """
    keys = labels
    if positives == "diagonal":
        keys = torch.arange(len(labels), device=labels.device) + (rank() << 32)
    return keys[:, None] == gather(keys)


def multi_positive_cross_entropy(logits: Tensor, positives: Tensor) -> Tensor:
    """Cross-entropy (B,) of logits (B, M) against a target uniform over each row's positives, bool (B, M).

    This is ``-mean_{j in P(i)} log softmax(z_i)_j`` (the outer mean of SupCon, 2004.11362), whose least value
    is ``log |P(i)|``, not 0. With a single positive it is the usual InfoNCE.
    """
    target = F.normalize(positives.to(logits.dtype), p=1, dim=1)
    return -(target * F.log_softmax(logits, dim=1)).sum(1)


def pair_losses(
    images: Tensor,
    texts: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor | None,
    positives: Tensor,
    text_keys: Tensor | None,
    gather: Gather = own_rows,
) -> tuple[Tensor, Tensor]:
    """The loss of the model's pre-training: `symmetric_info_nce` for CLIP, `sigmoid_pairs` for SigLIP.

    Args:
        logit_bias: SigLIP's; None is CLIP.
        text_keys: (B,), equal for equal texts; softmaxes do without.
    """
    if logit_bias is None:
        return symmetric_info_nce(images, texts, logit_scale, positives, gather)
    copies = text_keys[:, None] == gather(text_keys)
    return sigmoid_pairs(images, texts, logit_scale, logit_bias, positives | copies, gather)


def sigmoid_pairs(
    images: Tensor,
    texts: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    positives: Tensor,
    gather: Gather = own_rows,
) -> tuple[Tensor, Tensor]:
    """Losses (B,) of each image's pairs and of each text's: whether a pair belongs together, without softmax.

    Row i is ``-sum_j log sigmoid(z_ij (s cos_ij + b))`` with z = 1 for positives and -1 otherwise (SigLIP,
    2303.15343). Over one process both have the same mean, which is SigLIP's loss. Equal texts must be
    positives of each other's images: a pair cannot match and mismatch at once.

    Args:
        images, texts: (B, D), a pair a row, not normalised.
        logit_scale, logit_bias: s and b.
        positives: (B, M), see `positive_pairs`.
        gather: as there.
    """
    signs = 2 * positives.to(images.dtype) - 1
    to_texts = cosine_logits(images, gather(texts), logit_scale) + logit_bias
    to_images = cosine_logits(texts, gather(images), logit_scale) + logit_bias
    return tuple(-F.logsigmoid(signs * logits).sum(1) for logits in (to_texts, to_images))


def symmetric_info_nce(
    images: Tensor,
    texts: Tensor,
    logit_scale: Tensor,
    positives: Tensor,
    gather: Gather = own_rows,
) -> tuple[Tensor, Tensor]:
    """Losses (B,) of finding each image's texts and each text's images among all M of the batch.

    Args:
        images, texts: (B, D), a pair a row, not normalised.
        logit_scale: CLIP's multiplier.
        positives: (B, M), see `positive_pairs`.
        gather: as there.
    """
    to_texts = cosine_logits(images, gather(texts), logit_scale)
    to_images = cosine_logits(texts, gather(images), logit_scale)
    return tuple(multi_positive_cross_entropy(logits, positives) for logits in (to_texts, to_images))
