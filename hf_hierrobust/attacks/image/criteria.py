"""What an attacker maximises, and how leaf logits become superclass logits.

Losses map logits (B, K) and labels (B,) to one value per image (B,); larger is worse for the model.
Reductions are left to the caller: a sum keeps the gradient direction of every image and does not
underflow in half precision, which a mean over a large batch can.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

AttackLoss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy per image, (B,). It depends on the logit scale: attack the deployed one."""
    return F.cross_entropy(logits.float(), labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Carlini-Wagner margin ``max_{c != y} z_c - z_y`` per image, (B,); positive means misclassified."""
    logits = logits.float()
    true = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.amax(1) - true[:, 0]


LOSSES: dict[str, AttackLoss] = {"ce": cross_entropy, "margin": margin}


def resolve_loss(loss: str | AttackLoss) -> AttackLoss:
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise ValueError(f"loss={loss!r} is unknown: choose one of {', '.join(LOSSES)} or pass a callable")
    return LOSSES[loss]


def misclassified(logits: Tensor, labels: Tensor) -> Tensor:
    """True where the arg-max is not the label, (B,)."""
    return logits.argmax(1) != labels
