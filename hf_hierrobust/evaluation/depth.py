"""Where the levels of a class tree lie in a model's ball, and the margins of its -kappa d there.

Norms are tangent norms sqrt(r)|v| after the head's clips; the ball's norm, as a fraction of its radius, is
their tanh. They do not saturate near the edge.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..classifiers.levels import LevelClassifier
from ..geometry import (
    classification_margin,
    edge_order,
    hyperbolic_margin,
    image_depth,
    level_medians,
    simplex_margins,
)
from ..hierarchy import LabelTree
from ..modeling.hier_head import HierHead

QUANTILES = (0.1, 0.5, 0.9)


class TreeDepth:
    """The texts of a tree's nodes in the ball of a calibrated head.

    Args:
        head: as it will be when images are measured.
        tree: aligned with the classes.
        classifiers: the classifier ``hyperbolic`` of each level, leaves first.
        gap_margin: by which training wanted parents' norms below their children's; None where it did not.

    Attributes:
        norms: (K_l,) of each level.
    """

    def __init__(
        self,
        head: HierHead,
        tree: LabelTree,
        classifiers: Sequence[LevelClassifier],
        gap_margin: float | None = None,
    ):
        self.head, self.tree, self.classifiers, self.gap_margin = head, tree, classifiers, gap_margin
        self.norms = [self._norm(one.classifier.points.radius).cpu() for one in classifiers]
        edges = [tree.edges(level) for level in range(tree.depth)]
        self._orders = edge_order(self.norms, edges, gap_margin or 0.0)
        self._medians = level_medians(self.norms, edges)

    def probe(self, level: int) -> Callable[[Tensor, Tensor], Tensor]:
        """Pixels and their classes (B,) at a level -> (B, 2): margin of -kappa d, norm beyond the text's.

        The margin is the score of the true class minus the best other one's; NaN where there is no other.
        The second is the norm of the image minus that of its own node's text.
        """
        one = self.classifiers[level]
        own = torch.zeros(int(one.to_node.max()) + 1)
        own[one.to_node] = self.norms[level][self.tree.ancestors(level)].float()

        def measure(pixels: Tensor, labels: Tensor) -> Tensor:
            features = one.classifier.features(pixels)
            image = self._norm(self.head.lift(self.head.image_tangent(features)).radius)
            margin = torch.full_like(image, math.nan)
            if len(own) > 1:
                margin = classification_margin(one.classifier.logits_of(features), labels)
            return torch.stack([margin, image - own.to(image.device)[labels]], dim=1)

        return measure

    def facts(self, level: int, clean: Tensor, attacked: Tensor | None = None) -> dict[str, Any]:
        """The entry ``depth`` of a record of this level.

        Args:
            clean, attacked: (N, 2) of all images, from the level's probe.
        """
        curvature, kappa = self.head.constants["curvature"], float(self.head.kappa)
        root, norms = math.sqrt(curvature), self.norms[level].double()
        middle, largest = self._medians[level], float(norms.max())
        # The triangle inequality bounds a margin by the radii of two texts, so by the largest of the level.
        bound = hyperbolic_margin(math.tanh(largest) / root, curvature, kappa)
        found: dict[str, Any] = {
            "curvature": curvature,
            "kappa": kappa,
            "nodes": len(norms),
            "tangent_norm": middle,
            "ball_norm": math.tanh(middle),
            "largest_tangent_norm": largest,
            "bound": float(bound),
        }
        if len(norms) > 1:
            eta = math.tanh(middle) / root
            found["simplex"] = float(simplex_margins(eta, len(norms), curvature, kappa).hyperbolic)
        if level < self.tree.depth:
            order = self._orders[level]
            found |= {"edges": order.edges, "edges_in_order": order.in_order}
            if self.gap_margin is not None:
                found |= {"gap_margin": self.gap_margin, "edges_by_margin": order.by_margin}
        if level == 0:
            found["image_depth"], found["images_not_nearer"] = image_depth(clean[:, 1])
        for name, values in (("clean_margin", clean), ("attacked_margin", attacked)):
            if values is not None and bool(values[:, 0].isfinite().all()):
                found[name] = values[:, 0].double().quantile(torch.tensor(QUANTILES).double()).tolist()
        return found

    def _norm(self, radius: Tensor) -> Tensor:
        return radius / (2 * self.head.radius)
