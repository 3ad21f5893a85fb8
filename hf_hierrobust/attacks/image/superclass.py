"""Attacks on the superclass of an image at one level of a tree (OC-17)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...classifiers.rollup import SuperclassView
from ...hierarchy import LabelTree
from ..base import check_labels, check_pixels
from .base import AttackResult
from .wrapped import WrappedAttack


@dataclass(kw_only=True)
class SuperclassAttack(WrappedAttack):
    """Any attack, aimed at the superclass of each image at one level of a tree (OC-17).

    It is no attack of its own: a view of the classifier and the leaves' ancestors as labels.

    Args:
        attack: the attack to run, e.g. ``PGD(eps="4/255")``.
        tree, level: what counts as a mistake: leaving the leaf's ancestor at this level.
        rolled_up: True when the classifier gives leaf logits (they are rolled up); False when it gives
            the logits of the level's own nodes, e.g. from superclass prompts.

    Raises:
        ValueError: the tree has no such level; an attack without a name of its own.
    """

    tree: LabelTree
    level: int
    rolled_up: bool = True

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.level < self.tree.num_levels:
            raise ValueError(
                f"level={self.level} is not in tree {self.tree.name!r} of {self.tree.num_levels} levels"
            )

    def __call__(
        self,
        classifier: Callable[[Tensor], Tensor],
        pixels: Tensor,
        leaf_labels: Tensor,
        *,
        search: Callable[[Tensor], Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> AttackResult:
        """See `Attack.__call__`; labels are leaf indices, and both callables give the same kind of logits."""
        check_pixels(pixels)
        leaf_labels = check_labels(
            leaf_labels,
            len(pixels),
            len(self.tree.leaves),
            name="leaf_labels",
            of=f"tree {self.tree.name!r} has {len(self.tree.leaves)} leaves",
        )
        labels = self.tree.ancestors(self.level)[leaf_labels]
        search = None if search is None else self._view(search)
        return self.attack(self._view(classifier), pixels, labels, search=search, generator=generator)

    def describe(self) -> dict:
        """The attack's constants, with the tree and level that it is aimed at."""
        return self.attack.describe() | {"tree": self.tree.name, "level": self.level}

    def _view(self, classifier: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return SuperclassView(classifier, self.tree, self.level) if self.rolled_up else classifier
