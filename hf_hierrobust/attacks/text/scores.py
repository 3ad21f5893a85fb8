"""What a text attacker maximises.

A score maps the embeddings (M, D) of altered texts and the index (M,) of the original that each belongs to
to one value per altered text, (M,); larger is worse for the model.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

TextScore = Callable[[Tensor, Tensor], Tensor]


def coordinate_kl(reference: Tensor, other: Tensor) -> Tensor:
    """MMCoA's distance ``KL(p(a) || p(b))``, p the softmax over the D coordinates of the unit embedding.

    Args:
        reference, other: embeddings (M, D), not normalised.

    Returns:
        (M,) in fp32, exactly 0 for equal embeddings (2404.19287; no temperature).
    """
    reference, other = F.normalize(reference.float(), dim=-1), F.normalize(other.float(), dim=-1)
    p = reference.softmax(-1)
    gap = other - reference
    # KL = log sum p exp(gap) - sum p gap. It is of second order in the gap: centred, and with the first order
    # taken off term by term, nothing cancels; the differences of log-softmaxes drown in fp32's rounding.
    gap = gap - (p * gap).sum(-1, keepdim=True)
    return (p * (gap.expm1() - gap)).sum(-1).log1p()


class LabelFreeScore:
    """How far an altered text is from its original (`coordinate_kl`); MMCoA's, and the default.

    Args:
        anchors: embeddings (N, D) of the originals.
    """

    def __init__(self, anchors: Tensor):
        self.anchors = anchors.detach()

    def __call__(self, embeddings: Tensor, index: Tensor) -> Tensor:
        return coordinate_kl(self.anchors[index], embeddings)


class PromptCrossEntropy:
    """Mean cross-entropy of labelled images when one class prompt is altered and the others are not.

    Args:
        image_features: (B, D), not normalised.
        labels: (B,) class of each image.
        prompt_features: (K, D) embeddings of the unaltered prompts, not normalised; the index of a
            prompt is its class.
        logit_scale: CLIP's multiplier.
    """

    def __init__(
        self,
        image_features: Tensor,
        labels: Tensor,
        prompt_features: Tensor,
        logit_scale: Tensor | float,
    ):
        self.images = logit_scale * F.normalize(image_features.detach().float(), dim=-1)
        self.labels = labels
        logits = self.images @ F.normalize(prompt_features.detach().float(), dim=-1).T
        self.true_logits = logits.gather(1, labels[:, None])
        # Log-sum-exp over all classes but one, from running sums: subtracting the one would cancel.
        edge = torch.full_like(logits[:, :1], -torch.inf)
        before = torch.cat([edge, logits.logcumsumexp(1)[:, :-1]], 1)
        after = torch.cat([logits.flip(1).logcumsumexp(1).flip(1)[:, 1:], edge], 1)
        self.others = torch.logaddexp(before, after)  # (B, K)

    def __call__(self, embeddings: Tensor, index: Tensor) -> Tensor:
        altered = self.images @ F.normalize(embeddings.float(), dim=-1).T  # (B, M)
        true = torch.where(self.labels[:, None] == index, altered, self.true_logits)
        return (torch.logaddexp(self.others[:, index], altered) - true).mean(0)
