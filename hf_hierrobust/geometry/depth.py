"""Whether norms encode depth: the order of norms along a tree's edges, and of images and their leaves.

Norms are distances to the centre in any one unit that grows with it: tangent norms, radii or norms in the
ball. Edges are, for each level but the top one, the indices of child and parent, two (E,) tensors, without
the self-loops by which a shallow class is padded to the depth of its tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor

Edges = Sequence[tuple[Tensor, Tensor]]


class EdgeOrder(NamedTuple):
    """Edges from one level upwards: how many, with the parent nearer the centre, and nearer by the margin."""

    edges: int
    in_order: int
    by_margin: int


class ImageDepth(NamedTuple):
    """Norms of images minus those of their own leaves' texts: their median, and the fraction that is >= 0."""

    median: float
    not_nearer: float


def edge_order(norms: Sequence[Tensor], edges: Edges, margin: float = 0.0) -> list[EdgeOrder]:
    """Count the edges in order, one entry for each level but the top one.

    Args:
        norms: of the nodes of each level, leaves first; L+1 tensors (K_l,).
        edges: L pairs, see above.
        margin: in the unit of the norms; an edge is in order by it if child - parent reaches it.

    Raises:
        ValueError: ``norms`` and ``edges`` are not of one tree, or the margin is negative.
    """
    _check(norms, edges)
    if not margin >= 0:
        raise ValueError(f"margin={margin} must not be negative: it is a difference of norms")
    found = []
    for level, (child, parent) in enumerate(edges):
        # In float64, so that a margin that holds exactly does not fall to the rounding of the difference.
        gap = norms[level].double()[child] - norms[level + 1].double()[parent]
        by_margin = (gap > 0) & (gap >= margin)
        found.append(EdgeOrder(len(gap), int((gap > 0).sum()), int(by_margin.sum())))
    return found


def level_medians(norms: Sequence[Tensor], edges: Edges) -> list[float]:
    """Median norm of each level, over the nodes that are its own.

    A node that only repeats one of the level below has that one's depth and does not count.

    Raises:
        ValueError: ``norms`` and ``edges`` are not of one tree.
    """
    _check(norms, edges)
    own = [norms[0]]
    for above, (_, parent) in zip(norms[1:], edges):
        own.append(above[parent.unique()] if len(parent) else above)
    return [float(values.double().quantile(0.5)) for values in own]


def smallest_step(medians: Sequence[float]) -> float | None:
    """Smallest difference of a level's median and that of the level above it; None for one level.

    Negative where a level lies farther from the centre than the level below.
    """
    return min((lower - upper for lower, upper in pairwise(medians)), default=None)


def image_depth(beyond: Tensor) -> ImageDepth:
    """How far beyond their own leaves' texts images lie.

    Args:
        beyond: (N,) norm of each image minus that of its leaf's text.

    Raises:
        ValueError: no images.
    """
    if beyond.ndim != 1 or not len(beyond):
        raise ValueError(f"beyond has shape {tuple(beyond.shape)}: give one number for each of >= 1 images")
    return ImageDepth(float(beyond.double().quantile(0.5)), float((beyond >= 0).double().mean()))


def _check(norms: Sequence[Tensor], edges: Edges) -> None:
    if len(norms) != len(edges) + 1:
        raise ValueError(f"{len(norms)} levels of norms need edges of {len(norms) - 1}, got {len(edges)}")
    for level, pair in enumerate(edges):
        for what, index, nodes in zip(("child", "parent"), pair, norms[level : level + 2]):
            if len(index) and not 0 <= int(index.min()) <= int(index.max()) < len(nodes):
                raise ValueError(
                    f"edges of level {level} have {what} indices {int(index.min())} to {int(index.max())}, "
                    f"but there are {len(nodes)} nodes"
                )
