"""Hierarchical AGFT: HierRobust's levels with AGFT's calibrated soft targets. A method of this package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import Polar
from ..geometry.precision import full_precision
from ..options import check_numbers, refuse_idle
from .agft import AGFT
from .base import OBJECTIVES, Targets, View
from .fare import FARE
from .hier_robust import HierRobust
from .hierarchical import TreeObjective
from .losses import squared_distance


@OBJECTIVES.register
@dataclass(kw_only=True)
class HierAGFT(TreeObjective):
    """Cross-entropy on attacked images at every level of the tree to soft targets rolled up from the leaves.

    No paper has this loss: it joins the levels of HierRobust (2604.18867) with the targets of AGFT
    (2603.29410) and the anchor of FARE (2402.12336). With the original model f0 on the clean image x, the
    leaf target is ::

        p = (1 - label_weight) softmax(gamma scale s cos(f0(x), T)) + label_weight onehot(y)

    and that of a superclass v is the sum ``p^l_v`` over its leaves. With ``scale`` times the scores of the
    attacked image x' against the prompts of level l, the loss, which the attack maximises too, is ::

        sum_l omega_l mean_b sum_v p^l_v [-log p^l(v | u_b)]
            + embedding_weight mean_b |f(x'_b) - f0(x_b)|^2 / |f0(x_b)|^2

    where ``p^l(v | u)`` is HierRobust's, whose HNSA negatives leave out the neighbours of v, or the softmax
    over the level alone (``hnsa="none"``). Every image stands by itself at every level. Without the anchor,
    a flat tree with ``label_weight=0, gamma=0.4, scale=1.8`` gives AGFT, and ``label_weight=1`` HierRobust's
    level losses without midpoints and regularisers. Levels, scores and the geometry of the ball have the
    options of `TreeObjective`; the defaults here are cosine scores, no HNSA and a frozen text projection.

    Args:
        gamma: calibration of the original's distribution, as in `AGFT`; below 1 it smooths. With labels in
            the target, 1 did better.
        scale: multiplier of training scores in units of the model's own, as in `AGFT`.
        label_weight: share of the labels in the target, from 0 (the original alone) to 1 (the labels alone).
        embedding_weight: of the anchor, which keeps accuracy on clean images and on other classes; 0 is none.
    """

    name: ClassVar[str] = "hier_agft"
    title: ClassVar[str] = (
        "HierRobust's class levels, AGFT's calibrated targets, FARE's anchor (hf_hierrobust)"
    )

    hnsa: Literal["both", "upper", "lower", "none"] = "none"
    score: Literal["hyperbolic", "squared", "cosine"] = "cosine"
    train_text_projection: bool = False
    gamma: float = 1.0
    scale: float = 1.0
    label_weight: float = 0.5
    embedding_weight: float = 3.0

    def __post_init__(self):
        super().__post_init__()
        check_numbers(self, "gamma", "scale", positive=True)
        check_numbers(self, "label_weight", "embedding_weight")
        if self.label_weight > 1:
            raise ValueError(f"label_weight={self.label_weight!r} must not exceed 1, the labels alone")
        if self.label_weight == 1:
            refuse_idle(self, {"gamma": "with label_weight=1, the labels alone"})
        if self.score == "cosine":
            refuse_idle(self, {"train_scales": "with score='cosine', under which they never train"})
        self.citation = "\n\n".join(source.citation for source in (HierRobust, AGFT, FARE))

    @property
    def needs(self) -> frozenset[str]:
        original = self.label_weight < 1 or self.embedding_weight > 0
        return super().needs | ({"reference"} if original else set())

    @property
    def idle_head_options(self) -> dict[str, str]:
        return {"vic_factor": f"on {self.name!r}, which has no neighbourhood term"}

    @property
    def trained_groups(self) -> tuple[str, ...]:
        """Without the head's scales under cosine scores, which do not depend on them."""
        skipped = {"hier_head"} if self.score == "cosine" else set()
        return tuple(group for group in super().trained_groups if group not in skipped)

    def inner_loss(self, view: View, targets: Targets) -> Tensor:
        """All terms (B,), the levels' losses summed over the view's levels and over trees."""
        return sum(self._terms(view, targets).values())

    def loss(self, views: Sequence[View], targets: Targets) -> dict[str, Tensor]:
        """Terms ``alignment`` and ``embedding``, weighted, summed over views."""
        found = [self._terms(view, targets) for view in views]
        names = dict.fromkeys(name for terms in found for name in terms)
        return {name: sum(terms[name].mean() for terms in found if name in terms) for name in names}

    def _terms(self, view: View, targets: Targets) -> dict[str, Tensor]:
        terms = {"alignment": self._alignment(view, targets)}
        # The anchor has no level: where each level has a perturbation of its own, it counts at the leaves'.
        if self.embedding_weight and (view.levels is None or 0 in view.levels):
            original = targets.reference.image_features
            size = squared_distance(original, torch.zeros_like(original))
            distance = squared_distance(view.image_features, original)
            terms["embedding"] = self.embedding_weight * distance / size
        return terms

    def _alignment(self, view: View, targets: Targets) -> Tensor:
        images, texts = self._lift(view)
        leaves = self.leaf_targets(targets)
        total = torch.zeros_like(images.radius)
        for tree, rows, level, weight in self._levels(view, leaves.device):
            index, joined = self._competitors(tree, rows, level)
            candidates = Polar(texts.direction[index], texts.radius[index])
            scores = self._score(view, images, candidates, self.scale)
            rolled_up = leaves.new_zeros(len(leaves), len(rows[level])).index_add(
                1, self._ancestors(tree, level, leaves.device), leaves
            )
            total = total + weight * soft_cross_entropy(scores, rolled_up, joined)
        return total

    def leaf_targets(self, targets: Targets) -> Tensor:
        """The soft target over the leaves, (B, K)."""
        if self.label_weight == 1:
            return F.one_hot(targets.labels, self.num_classes).float()
        original = (self.gamma * self.scale * self.leaf_logits(targets.reference)).softmax(-1)
        labels = F.one_hot(targets.labels, self.num_classes).to(original.dtype)
        return (1 - self.label_weight) * original + self.label_weight * labels


@full_precision
def soft_cross_entropy(scores: Tensor, target: Tensor, joined: Tensor | None = None) -> Tensor:
    """Expectation (B,) over a soft target of the negative log-probability with HNSA negatives.

    For each node v the softmax runs over the K nodes of the level and those of the J further nodes that are
    not joined to v.

    Args:
        scores: (B, K + J), the level's own nodes first.
        target: (B, K) probabilities.
        joined: (K, J) True where a further node is joined to a node of the level by an edge; None if J = 0.
    """
    nodes = target.shape[1]
    own, further = scores[:, :nodes], scores[:, nodes:]
    normaliser = own.logsumexp(1, keepdim=True)
    if joined is not None:
        # sum_j exp(z_j) over the unjoined, for all v at once: no (B, K, J) tensor. In fp64, since the peak
        # may be a joined node's: what lies 87 nats below it would vanish in fp32, 708 are out of reach.
        peak = further.detach().amax(1, keepdim=True)
        unjoined = (further - peak).double().exp() @ (~joined).double().T
        smallest = torch.finfo(torch.float64).tiny
        normaliser = torch.logaddexp(normaliser, peak + unjoined.clamp(min=smallest).log().to(scores.dtype))
    return (target * (normaliser - own)).sum(1)
