"""Whether the ball of the model in training encodes depth: metrics of an evaluation beside it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..geometry import edge_order, image_depth, level_medians
from ..hierarchy import LabelTree
from ..modeling import PixelPipeline, RobustDualEncoder


class DepthMetrics:
    """Order of a tree's text norms, and the norms of images beside those of their leaves' texts.

    Norms are tangent norms in units of 1/sqrt(r), after the head's clips.

    Args:
        model: its head is calibrated; between two `refresh` nothing may train.
        tree: with at least one level above the leaves.
    """

    def __init__(self, model: RobustDualEncoder, pipeline: PixelPipeline, tree: LabelTree):
        self.model, self.pipeline = model, pipeline
        self._edges = [tree.edges(level) for level in range(tree.depth)]
        self._levels = [tree.own_levels(level) for level in range(tree.num_levels)]
        self._norms: list[Tensor] = []

    @torch.no_grad()
    def refresh(self, levels: Sequence[Tensor]) -> None:
        """Take the norms of the texts under the current weights.

        Args:
            levels: pooled states of each level's nodes, leaves first, (K_l, w) each.
        """
        head = self.model.hier_head
        features = [self.model.project_text(states) for states in levels]
        tangents = (head.text_tangent(one, own) for one, own in zip(features, self._levels))
        self._norms = [self._norm(tangent).cpu() for tangent in tangents]

    @torch.no_grad()
    def beyond(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """(B,) norms of images minus those of their own leaves' texts.

        Args:
            pixels: (B, 3, H, W) in [0, 1].
            labels: (B,) leaf of each.
        """
        with torch.autocast(pixels.device.type, enabled=False):
            features = self.model.encode_image(self.pipeline(pixels))
        norms = self._norm(self.model.hier_head.image_tangent(features))
        return norms - self._norms[0].to(norms.device)[labels]

    def metrics(self, beyond: Tensor) -> dict[str, float]:
        """``edges_in_order`` (a fraction), ``depth_level0``, … and ``image_depth``, the median of ``beyond``.

        Args:
            beyond: (N,) of all images.
        """
        orders = edge_order(self._norms, self._edges)
        found = {"edges_in_order": sum(o.in_order for o in orders) / sum(o.edges for o in orders)}
        for level, median in enumerate(level_medians(self._norms, self._edges)):
            found[f"depth_level{level}"] = median
        return found | {"image_depth": image_depth(beyond).median}

    def _norm(self, tangent: Tensor) -> Tensor:
        head = self.model.hier_head
        return head.tangent_norm_of(head.lift(tangent))
