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
    ties = tied(others, true)
    to_tied = (others.masked_fill(~ties, -torch.inf) - true).amax(1)
    to_rest = (others.masked_fill(ties, -torch.inf) - true).amax(1)
    # Added, not replaced: a tie may also be the decision boundary itself, above all in bf16.
    both = torch.where(to_rest.isneginf(), to_tied, to_rest + to_tied)
    return torch.where(ties.any(1), both, to_rest)


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference-of-logits ratio ``-(z_y - max_{c != y} z_c) / (z_1 - z_3)`` per image, (B,) (2003.01690).

    ``z_1, z_3`` are the largest and third largest logit. Neither shifting nor scaling the logits changes it.
    Twins, which tie for ever, count as one class in the ranks, or the ratio would be constant. With fewer
    than three classes it is the margin.
    """
    top = ranked(logits, 3)
    return margin(logits, labels) / _spread(top[:, 0], top[:, 2])


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """``-(z_y - z_t) / (z_1 - (z_3 + z_4) / 2)`` per image, (B,) (2003.01690); it rises towards t.

    With three classes the divisor is ``z_1 - z_3``, with two it is 1.

    Args:
        targets: (B,) classes that the images shall be taken for.
    """
    top = ranked(logits, 4)
    low = torch.where(top[:, 3].isneginf(), top[:, 2], (top[:, 2] + top[:, 3]) / 2)
    gap = logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None])
    return gap[:, 0] / _spread(top[:, 0], low)


def tied(logits: Tensor, value: Tensor) -> Tensor:
    """Which logits (B, K) tie with a value, (B, 1) or (B, K): equal up to a few units in the last place."""
    return ((logits - value).abs() <= TIE * value.abs()).detach()


def twins(logits: Tensor, labels: Tensor) -> Tensor:
    """Which other classes (B, K) tie with the label: on a clean image, those with the same text."""
    return tied(logits, logits.gather(1, labels[:, None])).scatter(1, labels[:, None], False)


def ranked(logits: Tensor, count: int) -> Tensor:
    """The largest logits (B, count), in descending order, tied ones once; -inf where there are fewer."""
    top = logits.topk(min(count, logits.shape[1]), 1).values
    if not tied(top[:, 1:], top[:, :-1]).any():
        return torch.nn.functional.pad(top, (0, count - top.shape[1]), value=-torch.inf)
    ranks = []
    for _ in range(count):
        ranks.append(logits.amax(1))
        logits = logits.masked_fill(tied(logits, ranks[-1][:, None]), -torch.inf)
    return torch.stack(ranks, 1)


def _spread(top: Tensor, low: Tensor) -> Tensor:
    """``top - low`` to divide by; 1 where there is no ``low``."""
    return torch.where(low.isneginf(), 1.0, top - low + 1e-12)


LOSSES: dict[str, AttackLoss] = {"ce": cross_entropy, "margin": margin, "dlr": dlr}


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
