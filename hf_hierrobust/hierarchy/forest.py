"""Forests: several class trees over the same leaves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .checks import TreeError
from .tree import LabelTree

__all__ = ["Forest", "as_forest"]


@dataclass(frozen=True)
class Forest:
    """Several trees over the same classes in the same order (HierRobust sums its losses over them, OC-14).

    Their leaves may have different keys: two leaves are one class if a key, prompt name or alias says so.

    Raises:
        TreeError: no tree, or a tree whose leaves differ; the message names the first differing class.
    """

    trees: tuple[LabelTree, ...]

    def __post_init__(self) -> None:
        if not self.trees:
            raise TreeError("a forest needs at least one tree")
        first = self.trees[0]
        for tree in self.trees[1:]:
            place = first.differs_from(tree)
            if place is not None and place < min(len(first.leaves), len(tree.leaves)):
                raise TreeError(
                    f"trees {first.name!r} and {tree.name!r} differ in their leaves, first at "
                    f"{first.leaves[place]!r} against {tree.leaves[place]!r}; align both to the class names "
                    "of the data set"
                )
            if place is not None:
                longer = max(first, tree, key=lambda t: len(t.leaves))
                raise TreeError(
                    f"of trees {first.name!r} and {tree.name!r} only {longer.name!r} has the leaf "
                    f"{longer.leaves[place]!r}"
                )

    def __iter__(self) -> Iterator[LabelTree]:
        return iter(self.trees)

    def __len__(self) -> int:
        return len(self.trees)

    def __getitem__(self, index: int) -> LabelTree:
        return self.trees[index]

    @property
    def leaves(self) -> tuple[str, ...]:
        """Keys of level 0 in the first tree."""
        return self.trees[0].leaves

    @property
    def name(self) -> str:
        """Names of the trees, joined by ``+``."""
        return "+".join(tree.name for tree in self.trees)

    @property
    def hash(self) -> str:
        """The tree's own hash for one tree, else 16 hex digits over the hashes of all in their order."""
        hashes = [tree.hash for tree in self.trees]
        return hashes[0] if len(hashes) == 1 else hashlib.sha256(",".join(hashes).encode()).hexdigest()[:16]

    def align(self, class_names: Sequence[str]) -> Forest:
        """Every tree aligned to ``class_names``, see `LabelTree.align`."""
        return Forest(tuple(tree.align(class_names) for tree in self.trees))


def as_forest(tree_or_forest: LabelTree | Forest | Sequence[LabelTree]) -> Forest:
    """A forest of one tree, of several, or the forest itself."""
    if isinstance(tree_or_forest, Forest):
        return tree_or_forest
    if isinstance(tree_or_forest, LabelTree):
        return Forest((tree_or_forest,))
    trees = tuple(tree_or_forest)
    if not all(isinstance(tree, LabelTree) for tree in trees):
        raise TypeError(f"expected a LabelTree, a Forest or a sequence of LabelTree, got {tree_or_forest!r}")
    return Forest(trees)
