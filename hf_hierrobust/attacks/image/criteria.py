"""What an attacker maximises.

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

TIE = 1e-6
"""Relative difference of logits up to which two classes count as tied: a few units in the last place."""


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy per image (B,), in float64. It depends on the logit scale: attack the deployed one.

    As ``log(1 + exp(u))`` of the log-odds ``u = logsumexp_{c != y} z_c - z_y``: from a saturated softmax,
    ``1 - p_y`` is 0 in fp32 from a gap of 17 on and in float64 from 37 on, and the label's part of the
    gradient with it; here it stays minus the sum of the other parts.
    """
    logits = _wide(logits)
    true = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf).logsumexp(1)
    return -F.logsigmoid(true[:, 0] - others)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Carlini-Wagner margin ``max_{c != y} z_c - z_y`` per image, (B,); positive means misclassified.

    Twins, classes with the same text, tie for ever, and the margin to them has no gradient. So where a class
    ties with the label, the best of the untied ones counts too: the sum of both margins.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    true = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    tied = ((others - true).abs() <= TIE * true.abs()).detach()
    to_tied = (others.masked_fill(~tied, -torch.inf) - true).amax(1)
    to_rest = (others.masked_fill(tied, -torch.inf) - true).amax(1)
    # Added, not replaced: a tie may also be the decision boundary itself, above all in bf16.
    both = torch.where(to_rest.isneginf(), to_tied, to_rest + to_tied)
    return torch.where(tied.any(1), both, to_rest)


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


def _wide(logits: Tensor) -> Tensor:
    """In float64, or fp32 where the device has none (Apple's GPUs)."""
    return logits.float() if logits.device.type == "mps" else logits.double()
