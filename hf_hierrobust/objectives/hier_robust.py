"""HierRobust: alignment at every level of a class tree in hyperbolic space (2604.18867).

Notation of the paper: HITA is the sum of level losses (eq. 10), HNSA its extra negatives, vic the
neighbourhood term (eq. 12), the gaps order norms by depth (eqs. 11 and 13), eq. 14 is the total.
Fields named OC-n are decisions where the sources are silent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..geometry import Polar
from ..hierarchy import Forest, as_forest
from .base import OBJECTIVES, Objective, TextNodes, View
from .collectives import sum_over_ranks
from .losses import hinge, masked_cross_entropy


@OBJECTIVES.register
@dataclass(kw_only=True)
class HierRobust(Objective):
    """Hierarchical image-text alignment over one tree or a forest.

    Args:
        hnsa: adjacent levels whose unjoined nodes are extra negatives.
        score: ``"hyperbolic"`` ``-kappa d_r``, ``"squared"`` ``-kappa' d_r^2`` with the same slope at the
            median distance, or ``"cosine"`` (OC-8).
        kappa_scale: multiplies the slope-matched ``kappa`` (OC-8).
        pooling: images of levels above the leaves: ``"midpoint"``, one Einstein midpoint per present
            node (OC-7), or ``"none"``, every image by itself.
        sync_midpoints: average the images of all processes, not only this one's (OC-7).
        level_weights: omega_l from the leaves upwards; None is the paper's ``1 - l / (L + 1)``.
        lambda_vic, lambda_gap: weights of eq. 14 (OC-15).
        gap_margin: zeta_gap in units of the ball's radius (OC-15).
        intra_gap: ``"label"``: text norm below image norm within a class; ``"rollup"``: rolled-up image
            norm below its child's; ``"both"``; ``"none"`` (OC-13).
        vic_factor: neighbourhood radius as a fraction of the initial median distance (OC-15).
        tangent_norm: median tangent norm at the start; None keeps the scales 1/sqrt(D) (OC-5).
        train_text_projection: False freezes it (the paper trains it).
        train_scales: False freezes the two tangent scales (OC-2).
        curvature: r of a ball of curvature -r (OC-6).
        ball_margin: distance xi kept from the edge, as a fraction of the ball's radius (OC-4).
        max_tangent_norm: clip of the tangent norm, in units of 1/sqrt(r) (OC-5).
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
    trains: ClassVar[tuple[str, ...]] = ("vision", "text_projection", "hier_head")
    default_attack: ClassVar[str] = "universal"
    needs_tree: ClassVar[bool] = True

    hnsa: Literal["both", "upper", "lower", "none"] = "both"
    score: Literal["hyperbolic", "squared", "cosine"] = "hyperbolic"
    kappa_scale: float = 1.0
    pooling: Literal["midpoint", "none"] = "midpoint"
    sync_midpoints: bool = False
    level_weights: tuple[float, ...] | None = None
    lambda_vic: float = 0.5
    lambda_gap: float = 1.0
    gap_margin: float = 0.02
    intra_gap: Literal["label", "rollup", "both", "none"] = "label"
    vic_factor: float = 0.9
    tangent_norm: float | None = None
    train_text_projection: bool = True
    train_scales: bool = True
    curvature: float = 1.0
    ball_margin: float = 1e-3
    max_tangent_norm: float = 4.0

    forest: Forest = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self):
        _choice("hnsa", self.hnsa, ("both", "upper", "lower", "none"))
        _choice("score", self.score, ("hyperbolic", "squared", "cosine"))
        _choice("pooling", self.pooling, ("midpoint", "none"))
        _choice("intra_gap", self.intra_gap, ("label", "rollup", "both", "none"))
        for name in ("kappa_scale", "vic_factor", "tangent_norm", "curvature", "max_tangent_norm"):
            value = getattr(self, name)
            if not (name == "tangent_norm" and value is None) and not _is_number(value, above=0):
                raise ValueError(f"{name}={value!r} must be a positive number")
        for name in ("lambda_vic", "lambda_gap", "gap_margin", "ball_margin"):
            if not _is_number(getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)!r} must be a number, at least 0")

    def setup(self, class_names: Sequence[str], forest: Forest | None = None) -> None:
        """Align the trees with the classes and lay out text rows and HNSA masks."""
        if forest is None:
            raise ValueError(
                "objective 'hier_robust' needs a class tree: pass tree='cifar100' or a JSON file"
            )
        self.forest = as_forest(forest).align(class_names)
        self.nodes = TextNodes.of_forest(class_names, self.forest)
        self._cache = {}  # of index tensors; an earlier set-up's belong to other trees
        if self.level_weights is not None and len(self.level_weights) != self.num_levels:
            raise ValueError(
                f"level_weights has {len(self.level_weights)} values but the deepest tree has "
                f"{self.num_levels} levels"
            )

    @property
    def trained_groups(self) -> tuple[str, ...]:
        off = {"text_projection": not self.train_text_projection, "hier_head": not self.train_scales}
        return tuple(group for group in self.trains if not off.get(group))

    @property
    def num_levels(self) -> int:
        return max(tree.num_levels for tree in self.forest)

    def calibrate(self, view: View, labels: Tensor) -> None:
        """Scales, kappa and neighbourhood radius from a clean batch; kept if the head has them already."""
        if not view.head.calibrated:
            view.head.configure(self.curvature, self.ball_margin, self.max_tangent_norm)
            view.head.calibrate(
                view.image_features,
                view.text_features[: len(self.forest.leaves)],
                labels,
                float(view.logit_scale),
                tangent_norm=self.tangent_norm,
                vic_factor=self.vic_factor,
            )

    def inner_loss(self, view: View, labels: Tensor) -> Tensor:
        """HITA over the view's levels, summed over trees (OC-14)."""
        images, texts = self._lift(view)
        return self._hita(view, images, texts, labels)

    def loss(self, views: Sequence[View], labels: Tensor) -> dict[str, Tensor]:
        """Terms ``hita``, ``vic``, ``label_gap``, ``intra_gap``, weighted as in eq. 14, summed over trees."""
        lifted = [self._lift(view) for view in views]
        terms = {"hita": sum(self._hita(v, *points, labels) for v, points in zip(views, lifted))}
        # Rivals with one perturbation a level regularise the first, which is the leaf level's.
        head, (images, texts) = views[0].head, lifted[0]
        if self.lambda_vic:
            own = Polar(texts.direction[labels], texts.radius[labels])
            vic = hinge(head.own_distance(images, own) - head.vic_radius)
            terms["vic"] = len(self.forest) * self.lambda_vic * vic
        if self.lambda_gap:
            terms["label_gap"] = self.lambda_gap * self._label_gap(head.ball_norm(texts))
            if self.intra_gap != "none":
                terms["intra_gap"] = self.lambda_gap * self._intra_gap(head, images, texts, labels)
        return terms

    def _lift(self, view: View) -> tuple[Polar, Polar]:
        tangent = view.text_tangent
        if view.text_delta is not None:
            tangent = tangent + view.text_delta
        return view.head.lift(view.image_tangent), view.head.lift(tangent)

    def _hita(self, view: View, images: Polar, texts: Polar, labels: Tensor) -> Tensor:
        total = images.radius.new_zeros(())
        for tree, rows in zip(self.forest, self._rows(labels.device)):
            for level in range(tree.num_levels):
                if view.levels is not None and level not in view.levels:
                    continue
                points, nodes = self._pool(tree, level, images, labels, view.head)
                weight = self._weight(level, tree.depth)
                total = total + weight * self._level_loss(view, tree, rows, level, points, nodes, texts)
        return total

    def _level_loss(self, view, tree, rows, level, points: Polar, nodes: Tensor, texts: Polar) -> Tensor:
        """Cross-entropy of one level with HNSA negatives, -log p^l(v | u) averaged over its points (OC-9)."""
        adjacent = [
            other
            for other, wanted in ((level - 1, ("both", "lower")), (level + 1, ("both", "upper")))
            if 0 <= other < tree.num_levels and self.hnsa in wanted
        ]
        index = torch.cat([rows[level], *(rows[other] for other in adjacent)])
        scores = self._score(view, points, Polar(texts.direction[index], texts.radius[index]))
        own = len(rows[level])
        if not adjacent:
            return masked_cross_entropy(scores, nodes)
        # The mask follows the true node, not the predicted one.
        joined = torch.cat([self._edges(tree, level, other, nodes.device) for other in adjacent], dim=1)
        return masked_cross_entropy(scores[:, :own], nodes, scores[:, own:], joined[nodes])

    def _score(self, view: View, points: Polar, texts: Polar) -> Tensor:
        head = view.head
        if self.score == "cosine":
            return self.kappa_scale * view.logit_scale * points.direction @ texts.direction.T
        if self.score == "hyperbolic":
            return self.kappa_scale * head.logits(points, texts)
        slope = self.vic_factor / (2 * head.vic_radius)  # 1 / (2 x median distance)
        return -self.kappa_scale * head.kappa * slope * head.distance(points, texts).square()

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

    def _weight(self, level: int, depth: int) -> float:
        return 1 - level / (depth + 1) if self.level_weights is None else self.level_weights[level]

    def _label_gap(self, norms: Tensor) -> Tensor:
        """Parent text norm below child text norm by the margin: mean over a tree's edges (OC-12), summed."""
        total = norms.new_zeros(())
        for tree, rows in zip(self.forest, self._rows(norms.device)):
            gaps = []
            for level in range(tree.depth):
                child, parent = (e.to(norms.device) for e in tree.edges(level))
                gaps.append(norms[rows[level + 1][parent]] - norms[rows[level][child]])
            total = total + self._mean_gap(gaps)
        return total

    def _intra_gap(self, head, images: Polar, texts: Polar, labels: Tensor) -> Tensor:
        norms, total = head.ball_norm(images), 0.0
        if self.intra_gap in ("label", "both"):
            gap = hinge(head.ball_norm(texts)[labels] - norms + self.gap_margin)
            total = total + len(self.forest) * gap
        if self.intra_gap in ("rollup", "both"):
            total = total + sum(self._rollup_gap(tree, head, images, labels) for tree in self.forest)
        return total

    def _rollup_gap(self, tree, head, images: Polar, labels: Tensor) -> Tensor | float:
        """Rolled-up image norm of a parent below that of its child (OC-13 B), mean over present edges."""
        gaps, lower, nodes = [], images, labels
        for level in range(1, tree.num_levels):
            upper, present = self._midpoints(tree, level, images, labels, head)
            parent = tree.ancestor_map(level - 1, level).to(labels.device)[nodes]
            position = torch.searchsorted(present, parent)
            real = ~tree.self_loops(level - 1).to(labels.device)[nodes]
            gaps.append((head.ball_norm(upper)[position] - head.ball_norm(lower))[real])
            lower, nodes = upper, present
        return self._mean_gap(gaps)

    def _mean_gap(self, gaps: list[Tensor]) -> Tensor | float:
        """Hinge over the gaps of all edges of a tree; zero where it has no level above the leaves."""
        return hinge(torch.cat(gaps) + self.gap_margin) if gaps else 0.0

    # Index tensors are small; a cache per device keeps host-to-device copies out of the inner loop.
    def _rows(self, device) -> tuple[tuple[Tensor, ...], ...]:
        return self._cached(
            ("rows", device), lambda: tuple(tuple(r.to(device) for r in rows) for rows in self.nodes.rows)
        )

    def _ancestors(self, tree, level: int, device) -> Tensor:
        return self._cached(("anc", id(tree), level, device), lambda: tree.ancestors(level).to(device))

    def _edges(self, tree, level: int, other: int, device) -> Tensor:
        return self._cached(
            ("edges", id(tree), level, other, device), lambda: tree.edge_mask(level, other).to(device)
        )

    def _cached(self, key, make):
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]


def _is_number(value, above: float | None = None) -> bool:
    """A number at least 0, or above a bound; JSON and YAML options may hold anything."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return value >= 0 if above is None else value > above


def _choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}={value!r} is unknown: choose one of {', '.join(choices)}")
