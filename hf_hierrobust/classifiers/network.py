"""A network that knows its classes by number, as a classifier of every level of a tree."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..hierarchy import LabelTree
from .levels import LevelClassifier
from .rollup import SuperclassView


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
        rolled, searched = (SuperclassView(one, tree, level) for one in (classifier, search))
        found.append(LevelClassifier(level, "rollup", rolled, searched, tree.ancestors(level)))
    return found


def _under_autocast(classifier: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def search(pixels: Tensor) -> Tensor:
        with torch.autocast(pixels.device.type, dtype=torch.bfloat16):
            return classifier(pixels).float()

    return search
