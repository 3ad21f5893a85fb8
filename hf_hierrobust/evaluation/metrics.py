"""Counts turned into numbers: accuracies per level, intervals and paired comparisons.

Every argument called `flags`, `*_correct` or `*_wrong` is a sequence of N booleans, one per image, in the
same image order everywhere; every accuracy and interval bound is a fraction in [0, 1], never a percentage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..hierarchy.tree import LabelTree


class PairedDifference(NamedTuple):
    """Accuracy of A minus accuracy of B on the same images; `p_value` is McNemar's exact two-sided test."""

    difference: float
    low: float
    high: float
    p_value: float


def accuracy(flags: Tensor | Sequence[bool]) -> float:
    """Fraction of true flags, counted in integers so that it equals successes / N to the last bit."""
    values = _flags("flags", flags)
    return int(values.sum()) / values.numel()


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (low, high) of a proportion; it stays in [0, 1] and is not empty at 0 or n.

    Raises:
        ValueError: `n < 1`, `successes` outside 0..n or not an integer, or `confidence` outside (0, 1).
    """
    if n < 1 or int(n) != n:
        raise ValueError(f"n={n} must be a positive integer: the number of evaluated images.")
    if not 0 <= successes <= n or int(successes) != successes:
        raise ValueError(f"successes={successes} must be an integer count in 0..{n}, not a fraction of n.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence} must lie strictly between 0 and 1, such as 0.95.")
    from scipy.stats import binomtest

    interval = binomtest(int(successes), int(n)).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def level_accuracies(leaf_predictions: Tensor, labels: Tensor, tree: LabelTree) -> list[float]:
    """Accuracy at each level of a leaf classifier whose prediction is replaced by its ancestor.

    Args:
        leaf_predictions: predicted leaf indices, `(N,)`.
        labels: true leaf indices, `(N,)`.
        tree: class tree; `tree.ancestors(level)` maps leaf index to node index, `(K_0,)`.

    Returns:
        `tree.num_levels` accuracies, entry l for level l (0 = leaves); never decreasing in l.
    """
    return [accuracy(same) for same in _same_ancestor(leaf_predictions, labels, tree)]


def hierarchical_distance(
    leaf_predictions: Tensor, labels: Tensor, tree: LabelTree, *, mistakes_only: bool = True
) -> float:
    """Mean height, in levels, of the lowest common ancestor of predicted and true leaf (arXiv 1912.09393).

    A pair that shares no node at any stored level meets in the implicit root, at height `tree.num_levels`.
    With `mistakes_only` (the "mistake severity") right predictions are left out and the value is at least 1;
    NaN when there is no mistake to grade. Otherwise right predictions count as 0.
    """
    # Once two leaves share an ancestor they share all above it: the number of unshared levels is the height.
    height = (~_same_ancestor(leaf_predictions, labels, tree)).sum(dim=0).double()
    if mistakes_only:
        height = height[height > 0]
    return height.mean().item() if height.numel() else math.nan


def paired_difference(
    flags_a: Tensor | Sequence[bool], flags_b: Tensor | Sequence[bool], confidence: float = 0.95
) -> PairedDifference:
    """Compare two models (or two attacks) on the same images: accuracy of A minus accuracy of B.

    The interval is Newcombe's score interval for paired proportions (Stat. Med. 17:2635, 1998, method 10):
    the Wilson intervals of both accuracies, joined through the correlation of the flags. It needs no
    resampling and, unlike a bootstrap, keeps a width when the models never disagree.

    Raises:
        ValueError: the flags are not of one length or not boolean.
    """
    from scipy.stats import binomtest

    a, b = _flag_pair("flags_a", flags_a, "flags_b", flags_b)
    n = a.numel()
    both, only_a, only_b = int((a & b).sum()), int((a & ~b).sum()), int((b & ~a).sum())
    neither = n - both - only_a - only_b
    count_a, count_b = both + only_a, both + only_b
    difference = (only_a - only_b) / n

    low_a, high_a = wilson_interval(count_a, n, confidence)
    low_b, high_b = wilson_interval(count_b, n, confidence)
    phi = _continuity_corrected_phi(both, only_a, only_b, neither)
    down = _correlated_norm(count_a / n - low_a, high_b - count_b / n, phi)
    up = _correlated_norm(high_a - count_a / n, count_b / n - low_b, phi)
    disagreements = only_a + only_b
    p_value = float(binomtest(only_a, disagreements).pvalue) if disagreements else 1.0
    return PairedDifference(difference, max(-1.0, difference - down), min(1.0, difference + up), p_value)


def _continuity_corrected_phi(both: int, only_a: int, only_b: int, neither: int) -> float:
    """Correlation of the two flags; a positive one is shrunk by half an image, as method 10 prescribes."""
    n = both + only_a + only_b + neither
    product = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    if product == 0:
        return 0.0
    covariance = both * neither - only_a * only_b
    if covariance > 0:
        covariance = max(covariance - n / 2, 0)
    return covariance / math.sqrt(product)


def _correlated_norm(x: float, y: float, phi: float) -> float:
    return math.sqrt(max(0.0, x * x - 2 * phi * x * y + y * y))


def _same_ancestor(leaf_predictions: Tensor, labels: Tensor, tree: LabelTree) -> Tensor:
    """Do the predicted and the true leaf have the same ancestor: bool `(num_levels, N)`."""
    predictions, labels = torch.as_tensor(leaf_predictions).cpu(), torch.as_tensor(labels).cpu()
    num_leaves = tree.ancestors(0).numel()
    for name, indices in (("leaf_predictions", predictions), ("labels", labels)):
        if indices.ndim != 1 or indices.numel() == 0 or indices.is_floating_point():
            raise ValueError(
                f"{name} must be a non-empty integer vector (N,), got {tuple(indices.shape)} {indices.dtype}."
            )
        if indices.min() < 0 or indices.max() >= num_leaves:
            raise ValueError(
                f"{name} spans {indices.min().item()}..{indices.max().item()}, outside the tree's "
                f"{num_leaves} leaves; pass leaf indices in the order of the tree."
            )
    if predictions.shape != labels.shape:
        raise ValueError(f"leaf_predictions has {predictions.numel()} entries but labels {labels.numel()}.")
    maps = torch.stack([tree.ancestors(level).cpu() for level in range(tree.num_levels)])
    return maps[:, predictions] == maps[:, labels]


def _flags(name: str, flags: Tensor | Sequence[bool]) -> Tensor:
    """Check and return flags as a bool vector `(N,)` on the CPU."""
    values = torch.as_tensor(flags).detach().cpu()
    if values.ndim != 1 or values.numel() == 0:
        raise ValueError(f"{name} must be a non-empty vector (N,), got shape {tuple(values.shape)}.")
    if not ((values == 0) | (values == 1)).all():
        raise ValueError(f"{name} must hold only 0/1 or False/True; compare predictions with labels first.")
    return values.bool()


def _flag_pair(name_a: str, flags_a, name_b: str, flags_b) -> tuple[Tensor, Tensor]:
    a, b = _flags(name_a, flags_a), _flags(name_b, flags_b)
    if a.shape != b.shape:
        raise ValueError(
            f"{name_a} has {a.numel()} entries and {name_b} {b.numel()}; both must describe the same images."
        )
    return a, b
