"""Radial placement: where the levels of a class tree start, so that depth is in order before training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

IN_ORDER = 0.98
"""Fraction of a level's edges that its scale puts in order; a few odd prompts must not drag it inwards."""


def place_levels(
    norms: Tensor,
    levels: Tensor,
    edges: Sequence[tuple[Tensor, Tensor]],
    leaf_norm: float,
    margin: float,
    scales: Tensor | None = None,
) -> Tensor:
    """One scale a level, at which parents lie nearer the centre than their children by a margin.

    The leaves get the median norm ``leaf_norm``. Each level above takes the largest scale at which 98 % of
    the edges into it are in order by the margin and its median lies below that of the level under it by the
    margin, but no smaller one than puts its median at ``leaf_norm (1 - l / (L + 1))``: an equal share of the
    way to the centre for every level.

    Args:
        norms: (N,) norms of the nodes' vectors before scaling.
        levels: (N,) level of each node, 0 for the leaves, which there must be. A level without a node, such
            as one that only repeats classes, takes the scale of the level below it.
        edges: for each tree (children, parents), rows of the nodes that an edge joins, (E,) each.
        leaf_norm, margin: tangent norms.
        scales: of the lowest levels, kept as they are; None starts from the leaves.

    Returns:
        (L + 1,) scales, float64.

    Raises:
        ValueError: the levels do not fit between the centre and ``leaf_norm`` at this margin, or the norms of
            a level have no median above zero.
    """
    top, norms, levels = int(levels.max()), norms.double().cpu(), levels.cpu()
    medians = {int(level): float(norms[levels == level].median()) for level in levels.unique()}
    for level, median in medians.items():
        if not 0 < median < math.inf:
            raise ValueError(
                f"level {level} cannot be placed: the median norm of its texts' embeddings is {median:g}: do "
                "the model's weights hold NaN, or zeros?"
            )
    check_room(top + 1, leaf_norm, margin)
    placed = [leaf_norm / medians[0]] if scales is None else scales.double().tolist()
    none = torch.zeros(0, dtype=torch.long)
    child, parent = (torch.cat([none, *(pair[end].cpu() for pair in edges)]) for end in (0, 1))
    for level in range(len(placed), top + 1):
        if level not in medians:
            placed.append(placed[-1])
            continue
        under = max(lower for lower in medians if lower < level)
        bound = (placed[under] * medians[under] - margin) / medians[level]
        into = levels[parent] == level
        if into.any():
            below = torch.tensor(placed, dtype=torch.float64)
            # A padded leaf may be joined to a level that is not the next one.
            allowed = below[levels[child[into]]] * norms[child[into]] - margin
            ratios = (allowed / norms[parent[into]]).sort().values
            bound = min(bound, float(ratios[int((1 - IN_ORDER) * len(ratios))]))
        floor = leaf_norm * (1 - level / (top + 1)) / medians[level]
        placed.append(max(bound, floor))
    return torch.tensor(placed, dtype=torch.float64)


def check_room(num_levels: int, leaf_norm: float, margin: float) -> None:
    """Refuse levels that do not fit between the centre and ``leaf_norm`` at this margin, see `place_levels`.

    Raises:
        ValueError: they do not.
    """
    if not margin * num_levels < leaf_norm:
        raise ValueError(
            f"gap_margin={margin:g} (as a tangent norm) does not fit {num_levels} levels within the leaves' "
            f"tangent norm {leaf_norm:g}: take a smaller gap_margin or a larger tangent_norm"
        )


def tangent_margin(margin: float, leaf_norm: float, norm: str) -> float:
    """A margin as a difference of tangent norms, in units of 1/sqrt(r).

    Args:
        norm: "tangent", or "ball" for a margin of ball norms, taken at the leaves, where those saturate most.
    """
    if norm == "tangent":
        return margin
    return leaf_norm - math.atanh(max(math.tanh(leaf_norm) - margin, 0.0))
