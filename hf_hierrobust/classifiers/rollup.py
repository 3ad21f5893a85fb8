"""How leaf logits become superclass logits."""

from __future__ import annotations

import torch
from torch import Tensor


def roll_up(leaf_logits: Tensor, ancestors: Tensor, num_nodes: int) -> Tensor:
    """Superclass logits ``log sum_{c in leaves(v)} exp z_c`` (OC-22 c).

    Args:
        leaf_logits: (B, K).
        ancestors: (K,) index of each leaf's superclass.
        num_nodes: number of superclasses V.

    Returns:
        (B, V) in fp32. The softmax over them is the leaf softmax summed within each superclass.

    Raises:
        ValueError: ``ancestors`` is not one index per leaf logit.
    """
    if ancestors.shape != leaf_logits.shape[1:]:
        raise ValueError(
            f"ancestors has shape {tuple(ancestors.shape)} but there are {leaf_logits.shape[1]} leaf logits: "
            "align the tree with the classifier's classes (LabelTree.align)"
        )
    logits = leaf_logits.float()
    # A sum inside one shared maximum would underflow for a superclass far below the best one.
    peak = torch.full((len(logits), num_nodes), -torch.inf, device=logits.device)
    index = ancestors.to(logits.device).expand_as(logits)
    peak = peak.scatter_reduce(1, index, logits.detach(), "amax")
    total = torch.zeros_like(peak).scatter_add(1, index, (logits - peak.gather(1, index)).exp())
    return peak + total.log()
