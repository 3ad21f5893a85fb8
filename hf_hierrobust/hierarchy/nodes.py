"""What the nodes of a tree are called in prompts."""

from __future__ import annotations

from collections.abc import Sequence

from .tree import LabelTree


def node_names(class_names: Sequence[str], tree: LabelTree | None = None) -> list[list[str]]:
    """Prompt names of the nodes of every level, leaf level first; training and evaluation both ask these.

    A class too shallow for a level is repeated there and keeps its class name: the tree may call its leaf
    otherwise ("American lobster" for "lobster"), and one class has one prompt.

    Args:
        class_names: of the data set, in the order of the tree's leaves.
        tree: aligned with them (`LabelTree.align`); None has leaves only.
    """
    if tree is None:
        return [list(class_names)]
    leaves = dict(zip(tree.leaves, class_names, strict=True))
    return [
        [leaves.get(key, shown) for key, shown in zip(keys, tree.display_names(level))]
        for level, keys in enumerate(tree.levels)
    ]
