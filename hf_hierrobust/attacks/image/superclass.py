"""Attacks on the superclass of an image at one level of a tree (OC-17)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...classifiers.freezing import Classifier
from ...classifiers.rollup import roll_up
from ...hierarchy import LabelTree
from .base import Attack, AttackResult


class SuperclassView:
    """A leaf classifier seen from one level of a tree: its logits rolled up to superclasses.

    Args:
        model: pixels -> leaf logits (B, K), with leaves in the tree's order.
        tree, level: the level whose nodes are the classes.
    """

    def __init__(self, model: Classifier, tree: LabelTree, level: int):
        self.module, self._model = model, model
        self.ancestors, self.num_nodes = tree.ancestors(level), len(tree.levels[level])

    def __call__(self, pixels: Tensor) -> Tensor:
        return roll_up(self._model(pixels), self.ancestors, self.num_nodes)


@dataclass(kw_only=True)
class SuperclassAttack:
    """Attack the superclass of each image at one level of a tree (OC-17).

    Args:
        attack: the attack to run, e.g. ``PGD(threat=…)``.
        tree, level: what counts as a mistake: leaving the leaf's ancestor at this level.
        rolled_up: True when the model gives leaf logits (they are rolled up); False when it gives
            the logits of the level's own nodes, e.g. from superclass prompts.
    """

    attack: Attack
    tree: LabelTree
    level: int
    rolled_up: bool = True

    def __call__(
        self,
        model: Classifier,
        pixels: Tensor,
        leaf_labels: Tensor,
        *,
        search_model: Classifier | None = None,
        generator: torch.Generator | None = None,
    ) -> AttackResult:
        """See `Attack.__call__`; labels are leaf indices, and both models give the same kind of logits."""
        if not 0 <= self.level < self.tree.num_levels:
            raise ValueError(
                f"level={self.level} is not in tree {self.tree.name!r} of {self.tree.num_levels} levels"
            )
        low, high = int(leaf_labels.min()), int(leaf_labels.max())
        if low < 0 or high >= len(self.tree.leaves):
            raise ValueError(
                f"leaf_labels span [{low}, {high}] but tree {self.tree.name!r} has "
                f"{len(self.tree.leaves)} leaves"
            )
        labels = self.tree.ancestors(self.level).to(leaf_labels.device)[leaf_labels]
        return self.attack(
            self._view(model),
            pixels,
            labels,
            search_model=None if search_model is None else self._view(search_model),
            generator=generator,
        )

    def _view(self, model: Classifier) -> Classifier:
        return SuperclassView(model, self.tree, self.level) if self.rolled_up else model
