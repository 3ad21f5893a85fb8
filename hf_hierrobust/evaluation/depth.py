"""Where the levels of a class tree lie in a model's ball, and the margins of its -kappa d there.

Norms are tangent norms sqrt(r)|v| after the head's clips; the ball's norm, as a fraction of its radius, is
their tanh. They do not saturate near the edge.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..classifiers import frozen, parts_of
from ..classifiers.levels import LevelClassifier, level_classifiers
from ..data import ClassSet
from ..geometry import (
    classification_margin,
    edge_order,
    hyperbolic_margin,
    image_depth,
    level_medians,
    simplex_margins,
)
from ..hierarchy import LabelTree
from ..modeling import PixelPipeline, RobustDualEncoder
from ..modeling.hier_head import HierHead
from .sets import EvaluationSet

QUANTILES = (0.1, 0.5, 0.9)


def classifiers_and_depth(
    model: RobustDualEncoder,
    pipeline: PixelPipeline,
    tokenizer,
    class_set: ClassSet,
    tree: LabelTree | None,
    names: Sequence[str] | None = None,
) -> tuple[list[LevelClassifier], TreeDepth | None]:
    """`level_classifiers` of the given names; and the depth of the tree, if the head is calibrated."""
    if tree is None or tree.depth == 0 or not model.hier_head.calibrated:
        return level_classifiers(model, pipeline, tokenizer, class_set, tree, names=names), None
    asked = [*names, "hyperbolic"] if names else None
    found = level_classifiers(model, pipeline, tokenizer, class_set, tree, names=asked)
    recipe = (getattr(model.config, "hier_robust", None) or {}).get("objective_args") or {}
    depth = TreeDepth(
        model.hier_head,
        tree.align(class_set.class_names),
        [one for one in found if one.name == "hyperbolic"],
        recipe.get("gap_margin"),
        recipe.get("gap_norm", "tangent"),
        told_by="cosine" if names and "hyperbolic" not in names else "hyperbolic",
    )
    return [one for one in found if not names or one.name in names], depth


def clean_depth(
    model: RobustDualEncoder,
    processor,
    data: EvaluationSet,
    template: str | None = None,
    batch_size: int = 250,
) -> list[dict[str, Any]]:
    """What records of a set say of depth, for each level, leaves first, from one pass over its clean images.

    Args:
        data: with a tree.
        template: prompt template in place of the class set's own.

    Raises:
        ValueError: the set has no tree with a level above the leaves, or the head is not calibrated.
    """
    pipeline = PixelPipeline(processor.image_processor)
    class_set = data.class_set if template is None else replace(data.class_set, templates=(template,))
    with frozen(model), torch.no_grad():
        found, depth = classifiers_and_depth(
            model, pipeline, processor.tokenizer, class_set, data.tree, ["hyperbolic"]
        )
        if depth is None:
            raise ValueError(f"{data.name!r} has no tree, or the model no calibrated head: no depth")
        stem, notes = parts_of(found[0].classifier).stem, [[] for _ in found]
        for batch in data.loader(processor, pipeline.space, batch_size):
            features = stem(batch["pixels"].to(model.device))
            for one, noted in zip(found, notes):
                nodes = one.to_node[batch["labels"]].to(model.device)
                noted.append(depth.notes(one.level, features, nodes).cpu())
    return [depth.facts(one, (torch.cat(noted), None)) for one, noted in zip(found, notes)]


class TreeDepth:
    """The texts of a tree's nodes in the ball of a calibrated head.

    Args:
        head: as it will be when images are measured.
        tree: aligned with the classes.
        classifiers: the classifier ``hyperbolic`` of each level, leaves first.
        gap_margin: by which training wanted parents' norms below their children's; None where it did not.
        gap_norm: of which norms: "tangent", or "ball" for their tanh.
        told_by: the classifier whose records tell depth: "hyperbolic" or, where that one is not attacked,
            "cosine".

    Attributes:
        norms: (K_l,) of each level.
    """

    def __init__(
        self,
        head: HierHead,
        tree: LabelTree,
        classifiers: Sequence[LevelClassifier],
        gap_margin: float | None = None,
        gap_norm: str = "tangent",
        told_by: str = "hyperbolic",
    ):
        self.head, self.tree, self.classifiers = head, tree, classifiers
        self.gap_margin, self.told_by = gap_margin, told_by
        self.norms = [self.head.tangent_norm_of(one.classifier.points).cpu() for one in classifiers]
        edges = [tree.edges(level) for level in range(tree.depth)]
        measured = [norms.double().tanh() if gap_norm == "ball" else norms for norms in self.norms]
        self._orders = edge_order(measured, edges, gap_margin or 0.0)
        self._medians = level_medians(self.norms, edges)

    def probe(self, one: LevelClassifier) -> Callable[[Tensor, Tensor], Tensor] | None:
        """Pixels and their classes (B,) -> (B, 2), for a job of this classifier; None if it tells no depth.

        First the margin of -kappa d at its level, the true class's score minus the best other one's, NaN
        where there is no other; then the norm of the image minus that of its own node's text.
        """
        if one.name != self.told_by:
            return None
        _, stem, _ = parts_of(self.classifiers[one.level].classifier)
        return lambda pixels, labels: self.notes(one.level, stem(pixels), labels)

    def notes(self, level: int, features: Tensor, nodes: Tensor) -> Tensor:
        """What the probe of a level says (B, 2), from embeddings (B, D) and classes there (B,)."""
        one = self.classifiers[level]
        own = torch.zeros(int(one.to_node.max()) + 1)
        own[one.to_node] = self.norms[level][self.tree.ancestors(level)]
        image = self.head.tangent_norm_of(self.head.lift(self.head.image_tangent(features)))
        margin = torch.full_like(image, math.nan)
        if len(own) > 1:
            margin = classification_margin(parts_of(one.classifier).head(features), nodes)
        return torch.stack([margin, image - own.to(image.device)[nodes]], dim=1)

    def facts(
        self, one: LevelClassifier, notes: tuple[Tensor, Tensor | None] | None
    ) -> dict[str, Any] | None:
        """The entry ``depth`` of a record of this classifier; None if it tells none.

        Args:
            notes: (N, 2) of all images when clean and, if they were, when attacked, from the probe.
        """
        if one.name != self.told_by or notes is None:
            return None
        level, clean = one.level, notes[0]
        # Pixels that the cosine was attacked by are no attack on -kappa d.
        attacked = notes[1] if one.name == "hyperbolic" else None
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
