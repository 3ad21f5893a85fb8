"""A network that knows its classes by number, as a classifier of every level of a tree."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..hierarchy import LabelTree
from .levels import LevelClassifier
from .rollup import roll_up


def network_classifiers(
    classifier: Callable[[Tensor], Tensor], num_classes: int, tree: LabelTree | None = None
) -> list[LevelClassifier]:
    """The network itself, ``network``, and its leaf probabilities summed at each upper level, ``rollup``.

    Args:
        classifier: pixels (B, 3, H, W) in [0, 1] -> logits (B, num_classes).
        tree: aligned with the classes; None has the leaf level only.
    """
    search = _under_autocast(classifier)
    found = [LevelClassifier(0, "network", classifier, search, torch.arange(num_classes))]
    for level in range(1, tree.num_levels if tree else 1):
        to_node, count = tree.ancestors(level), tree.sizes[level]
        rolled, searched = (_rolled(one, to_node, count) for one in (classifier, search))
        found.append(LevelClassifier(level, "rollup", rolled, searched, to_node))
    return found


def _under_autocast(classifier: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def search(pixels: Tensor) -> Tensor:
        with torch.autocast(pixels.device.type, dtype=torch.bfloat16):
            return classifier(pixels).float()

    return search


def _rolled(classifier: Callable[[Tensor], Tensor], to_node: Tensor, count: int):
    def rolled(pixels: Tensor) -> Tensor:
        return roll_up(classifier(pixels), to_node, count)

    return rolled
