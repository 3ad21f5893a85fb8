"""How leaf logits become superclass logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..hierarchy import LabelTree
from .classifier import read_logits
from .shared import Parts, parts_of


def roll_up(leaf_logits: Tensor, ancestors: Tensor, num_nodes: int) -> Tensor:
    """Superclass logits ``log sum_{c in leaves(v)} exp z_c`` (OC-22 c).

    Args:
        leaf_logits: (B, K).
        ancestors: (K,) index of each leaf's superclass.
        num_nodes: number of superclasses V.

    Returns:
        (B, V) in fp32 or wider. The softmax over them is the leaf softmax summed within each superclass.

    Raises:
        ValueError: ``ancestors`` is not one index per leaf logit.
    """
    if ancestors.shape != leaf_logits.shape[1:]:
        raise ValueError(
            f"ancestors has shape {tuple(ancestors.shape)} but there are {leaf_logits.shape[1]} leaf logits: "
            "align the tree with the classifier's classes (LabelTree.align)"
        )
    logits = leaf_logits.to(torch.promote_types(leaf_logits.dtype, torch.float32))
    # A sum inside one shared maximum would underflow for a superclass far below the best one.
    peak = torch.full((len(logits), num_nodes), -torch.inf, dtype=logits.dtype, device=logits.device)
    index = ancestors.to(logits.device).expand_as(logits)
    peak = peak.scatter_reduce(1, index, logits.detach(), "amax")
    total = torch.zeros_like(peak).scatter_add(1, index, (logits - peak.gather(1, index)).exp())
    return peak + total.log()


class SuperclassView:
    """A leaf classifier seen from one level of a tree: its logits rolled up to superclasses.

    Args:
        leaves: pixels -> leaf logits (B, K), with leaves in the tree's order.
        tree, level: the level whose nodes are the classes.

    Raises:
        ValueError: the tree has no such level.
    """

    def __init__(self, leaves: Callable[[Tensor], Tensor], tree: LabelTree, level: int):
        self.leaves = leaves
        if not 0 <= level < tree.num_levels:
            raise ValueError(f"level={level} is not in tree {tree.name!r} of {tree.num_levels} levels")
        self.ancestors, self.num_nodes = tree.ancestors(level), len(tree.levels[level])

    def __call__(self, pixels: Tensor) -> Tensor:
        return self._rolled(self.leaves(pixels), len(pixels))

    def parts(self) -> Parts:
        """See `parts_of`: the leaf classifier's own parts, rolled up."""
        key, stem, head = parts_of(self.leaves)

        def rolled(found):
            logits = head(found)
            return self._rolled(logits, len(logits))

        return Parts(key, stem, rolled)

    def _rolled(self, logits: Tensor, num_images: int) -> Tensor:
        return roll_up(read_logits(logits, num_images), self.ancestors, self.num_nodes)
