"""Which classes targeted attacks aim at, and what attacks do where there are few classes."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from .criteria import twins


class FewClassesWarning(UserWarning):
    """There are fewer classes than an attack is made for; the message says what it does instead."""


def ranked_targets(logits: Tensor, labels: Tensor, count: int) -> Tensor:
    """The best wrong classes of clean images, best first: the targets 2 to 10 of AutoAttack.

    Classes that tie with the label, such as those of the same text, come last: no image tells them apart.

    Args:
        logits, labels: (B, K) and (B,), of images that are classified correctly.
        count: targets wanted.

    Returns:
        (B, T), int64; T is ``count``, or K - 1 where there are fewer, which a warning says.
    """
    others = logits.shape[1] - 1
    if others < count:
        warnings.warn(
            f"there are {others + 1} classes: targeted attacks aim at the {others} others, not at {count}",
            FewClassesWarning,
            stacklevel=2,
        )
    ranks = logits.masked_fill(twins(logits, labels), torch.finfo(logits.dtype).min)
    ranks = ranks.scatter(1, labels[:, None], -torch.inf)
    return ranks.topk(min(count, others), 1).indices


def warn_without_dlr(num_classes: int, needed: int) -> None:
    """Say what takes the place of the DLR loss where it needs more classes."""
    if num_classes < needed:
        instead = "the margin is attacked" if num_classes < 3 else "the gap is divided by z_1 - z_3"
        what = "the DLR loss needs three" if needed == 3 else "the targeted DLR loss needs four"
        warnings.warn(
            f"there are {num_classes} classes and {what}: {instead} in its place",
            FewClassesWarning,
            stacklevel=2,
        )
