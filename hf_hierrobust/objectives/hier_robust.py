"""HierRobust: alignment at every level of a class tree in hyperbolic space (2604.18867).

Notation of the paper: HITA is the sum of level losses (eq. 10), HNSA its extra negatives, vic the
neighbourhood term (eq. 12), the gaps order norms by depth (eqs. 11 and 13), eq. 14 is the total.
OC-n are decisions where the sources are silent, see docs/decisions.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..geometry import Polar
from ..options import check_choice, check_flag, check_numbers, refuse_idle
from .base import OBJECTIVES, Targets, View
from .collectives import sum_over_ranks
from .hierarchical import TreeObjective
from .losses import hinge, masked_cross_entropy


@OBJECTIVES.register
@dataclass(kw_only=True)
class HierRobust(TreeObjective):
    """Hierarchical image-text alignment over one tree or a forest.

    Levels, scores, HNSA and the geometry of the ball have the options of `TreeObjective`.

    Args:
        kappa_scale: multiplies the scores, whose ``kappa`` has the slope of CLIP's logits (OC-8); None is 1/4
            for distances and 1 for the cosine.
        pooling: images of levels above the leaves: ``"midpoint"``, one Einstein midpoint per present
            node (OC-7), or ``"none"``, every image by itself.
        level_reduction: ``"mean"`` or ``"sum"`` over the points of a level (OC-9).
        sync_midpoints: average the images of all processes, not only this one's (OC-7).
        lambda_vic, lambda_gap: weights of eq. 14 (OC-15).
        vic_hinge: False takes eq. 12 as printed, whose radius then has no effect on the gradient (OC-11).
        edge_reduction: ``"sum"`` over the edges of a tree in the gaps, as printed, or ``"mean"`` (OC-12).
        level_gap: hold the levels' median text norms apart by the margin, too, which edges in order do not;
            each step between two levels weighs as much as its edges (OC-12).
        intra_gap: ``"label"``: text norm below image norm within a class; ``"rollup"``: rolled-up image
            norm below its child's, on each image's way to the top; ``"both"``; ``"none"`` (OC-13). A mean
            over the images of sums over the terms of each.
        tree_reduction: ``"sum"`` or ``"mean"`` of the trees' losses, in the attack too (OC-14).
    """

    name: ClassVar[str] = "hier_robust"
    title: ClassVar[str] = "Hierarchically Robust Zero-shot Vision-language Models"
    paper_id: ClassVar[str] = "2604.18867"
    citation: ClassVar[str] = """@inproceedings{dong2026hierarchically,
  title={Hierarchically Robust Zero-shot Vision-language Models},
  author={Dong, Junhao and Zhang, Yifei and Zhu, Hao and Ong, Yew-Soon and Koniusz, Piotr},
  booktitle={IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year={2026}
}"""

    kappa_scale: float | None = None
    pooling: Literal["midpoint", "none"] = "midpoint"
    level_reduction: Literal["mean", "sum"] = "mean"
    sync_midpoints: bool = False
    lambda_vic: float = 0.5
    lambda_gap: float = 1.0
    vic_hinge: bool = True
    edge_reduction: Literal["mean", "sum"] = "sum"
    level_gap: bool = True
    intra_gap: Literal["label", "rollup", "both", "none"] = "label"
    tree_reduction: Literal["sum", "mean"] = "sum"

    def __post_init__(self):
        super().__post_init__()
        check_choice(self, "pooling", ("midpoint", "none"))
        check_choice(self, "intra_gap", ("label", "rollup", "both", "none"))
        for name in ("level_reduction", "edge_reduction", "tree_reduction"):
            check_choice(self, name, ("mean", "sum"))
        check_flag(self, "sync_midpoints", "vic_hinge", "level_gap")
        if self.kappa_scale is not None:
            check_numbers(self, "kappa_scale", positive=True)
        check_numbers(self, "lambda_vic", "lambda_gap")
        if not self.lambda_vic:
            refuse_idle(self, {"vic_hinge": "with lambda_vic=0"})
        if not self.lambda_gap:
            idle = ("edge_reduction", "level_gap", "intra_gap")
            refuse_idle(self, dict.fromkeys(idle, "with lambda_gap=0"))
        if not self._takes_midpoints:
            refuse_idle(self, {"sync_midpoints": "with pooling='none', where there are no midpoints"})

    def _idle_on_trees(self) -> dict[str, str]:
        idle = super()._idle_on_trees()
        if len(self.forest) == 1:
            idle["tree_reduction"] = "on a single tree"
        above = any(weight for tree in self.forest for weight in self._weights(tree)[1:])
        if not above:
            idle["pooling"] = "where no level above the leaves counts"
            if not self._rolls_up:
                idle["sync_midpoints"] = idle["pooling"]
        if self.num_levels == 1:
            unused = ("edge_reduction", "level_gap", "sync_midpoints")
            idle |= dict.fromkeys(unused, "on a tree without superclasses")
            if self.intra_gap == "both":
                idle["intra_gap"] = "on a tree without superclasses, where it is 'label'"
        return idle

    @property
    def idle_head_options(self) -> dict[str, str]:
        if not self.lambda_vic:
            return {"vic_factor": "with lambda_vic=0"}
        return {} if self.vic_hinge else {"vic_factor": "with vic_hinge=False, which has no radius"}

    def inner_loss(self, view: View, targets: Targets) -> Tensor:
        """HITA over the view's levels and all trees (OC-14)."""
        images, texts = self._lift(view)
        return self._share * self._hita(view, images, texts, targets.labels)

    def loss(self, views: Sequence[View], targets: Targets) -> dict[str, Tensor]:
        """Terms of eq. 14, weighted, over all trees: ``hita``, ``vic``, ``label_gap``, ``intra_gap``.

        ``level_gap`` stands beside them where it is on.
        """
        labels = targets.labels
        lifted = [self._lift(view) for view in views]
        terms = {"hita": sum(self._hita(v, *points, labels) for v, points in zip(views, lifted))}
        # Rivals with one perturbation a level regularise the first, which is the leaf level's.
        head, (images, texts) = views[0].head, lifted[0]
        if self.lambda_vic:
            own = Polar(texts.direction[labels], texts.radius[labels])
            excess = head.own_distance(images, own) - head.vic_radius
            vic = hinge(excess) if self.vic_hinge else excess.mean()
            terms["vic"] = len(self.forest) * self.lambda_vic * vic
        if self.lambda_gap:
            weight = self.lambda_gap * head.radius  # norms below are in units of the radius
            norms = self._depths(head, texts)
            terms["label_gap"] = weight * self._label_gap(norms)
            if self.level_gap:
                terms["level_gap"] = weight * self._level_gap(norms)
            if self.intra_gap != "none":
                terms["intra_gap"] = weight * self._intra_gap(head, images, texts, labels)
        return {name: self._share * term for name, term in terms.items()}

    @property
    def _rolls_up(self) -> bool:
        return self.lambda_gap > 0 and self.intra_gap in ("rollup", "both")

    @property
    def _takes_midpoints(self) -> bool:
        return self.pooling == "midpoint" or self._rolls_up

    @property
    def _scale(self) -> float:
        if self.kappa_scale is not None:
            return self.kappa_scale
        return 1.0 if self.score == "cosine" else 0.25

    @property
    def _share(self) -> float:
        return 1 / len(self.forest) if self.tree_reduction == "mean" else 1.0

    def _hita(self, view: View, images: Polar, texts: Polar, labels: Tensor) -> Tensor:
        total = images.radius.new_zeros(())
        for tree, rows, level, weight in self._levels(view, labels.device):
            points, nodes = self._pool(tree, level, images, labels, view.head)
            total = total + weight * self._level_loss(view, tree, rows, level, points, nodes, texts)
        return total

    def _level_loss(self, view, tree, rows, level, points: Polar, nodes: Tensor, texts: Polar) -> Tensor:
        """Cross-entropy of one level with HNSA negatives, -log p^l(v | u) over its points (OC-9)."""
        index, joined = self._competitors(tree, rows, level)
        texts = Polar(texts.direction[index], texts.radius[index])
        scores, own = self._score(view, points, texts, self._scale), len(rows[level])
        if joined is None:
            return masked_cross_entropy(scores, nodes, reduction=self.level_reduction)
        # The mask follows the true node, not the predicted one.
        negatives, excluded = scores[:, own:], joined[nodes]
        return masked_cross_entropy(scores[:, :own], nodes, negatives, excluded, self.level_reduction)

    def _pool(self, tree, level: int, images: Polar, labels: Tensor, head) -> tuple[Polar, Tensor]:
        """Points of a level and their true nodes: images at the leaves, midpoints of present nodes above."""
        nodes = self._ancestors(tree, level, labels.device)[labels]
        if level == 0 or self.pooling == "none":
            return images, nodes
        return self._midpoints(tree, level, images, labels, head)

    def _midpoints(self, tree, level: int, images: Polar, labels: Tensor, head) -> tuple[Polar, Tensor]:
        """Midpoint of the images below each present node, and the node; over all processes if asked."""
        nodes = self._ancestors(tree, level, labels.device)[labels]
        reduce = sum_over_ranks if self.sync_midpoints else None
        return head.midpoints(images, nodes, len(tree.levels[level]), reduce)

    def _label_gap(self, norms: Tensor) -> Tensor:
        """Parent text norm below child text norm by the margin, over edges (OC-12), summed over trees."""
        total = norms.new_zeros(())
        for tree, rows in zip(self.forest, self._rows(norms.device)):
            gaps = [norms[parent] - norms[child] for child, parent in self._edges(tree, rows)]
            if gaps:
                total = total + hinge(torch.cat(gaps) + self.gap_margin, self.edge_reduction)
        return total

    def _level_gap(self, norms: Tensor) -> Tensor:
        """Median text norm of a level below that of the level under it by the margin, summed over trees."""
        total = norms.new_zeros(())
        for tree, rows in zip(self.forest, self._rows(norms.device)):
            levels, steps = self._own_rows(tree, rows)
            medians = torch.stack([norms[own].quantile(0.5) for own in levels])
            total = total + hinge(medians.diff()[steps] + self.gap_margin, self.edge_reduction)
        return total

    def _intra_gap(self, head, images: Polar, texts: Polar, labels: Tensor) -> Tensor:
        norms, total = self._depths(head, images), 0.0
        if self.intra_gap in ("label", "both"):
            gap = hinge(self._depths(head, texts)[labels] - norms + self.gap_margin)
            total = total + len(self.forest) * gap
        if self.intra_gap in ("rollup", "both"):
            total = total + sum(self._rollup_gap(tree, head, images, labels) for tree in self.forest)
        return total

    def _rollup_gap(self, tree, head, images: Polar, labels: Tensor) -> Tensor | float:
        """Rolled-up image norm of a parent below that of its child (OC-13 B), over each image's edges."""
        lower, nodes = images, labels
        own = torch.arange(len(labels), device=labels.device)  # each image's point at the lower level
        terms, edges = [], 0
        for level in range(1, tree.num_levels):
            upper, present = self._midpoints(tree, level, images, labels, head)
            parent = tree.ancestor_map(level - 1, level).to(labels.device)[nodes]
            position = torch.searchsorted(present, parent)
            real = ~tree.self_loops(level - 1).to(labels.device)[nodes]
            gaps = self._depths(head, upper)[position] - self._depths(head, lower)
            gaps = torch.where(real, (gaps + self.gap_margin).relu(), 0)
            terms.append(gaps[own].mean() if self.edge_reduction == "sum" else gaps.sum())
            edges += int(real.sum())
            lower, nodes, own = upper, present, position[own]
        return sum(terms) / (1 if self.edge_reduction == "sum" else max(edges, 1))
