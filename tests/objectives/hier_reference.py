"""HierRobust's equations written out once more: ball points, Moebius distances, Klein midpoints, plain loops.

Float64 throughout. Nothing is shared with the package: nodes are names, trees are ``{leaf: [anc_1, ...]}``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def exp0(v: Tensor, r: float) -> Tensor:
    size = math.sqrt(r) * v.norm()
    return torch.tanh(size) * v / size


def mobius_add(u: Tensor, v: Tensor, r: float) -> Tensor:
    uv, uu, vv = u @ v, u @ u, v @ v
    return ((1 + 2 * r * uv + r * vv) * u + (1 - r * uu) * v) / (1 + 2 * r * uv + r * r * uu * vv)


def distance(u: Tensor, v: Tensor, r: float) -> Tensor:
    return 2 / math.sqrt(r) * torch.atanh(math.sqrt(r) * mobius_add(-u, v, r).norm())


def einstein_midpoint(points: list[Tensor], r: float) -> Tensor:
    """Through the Klein model: weights are the Lorentz factors."""
    klein = [2 * u / (1 + r * (u @ u)) for u in points]
    gamma = [1 / torch.sqrt(1 - r * (k @ k)) for k in klein]
    mean = sum(g * k for g, k in zip(gamma, klein)) / sum(gamma)
    return mean / (1 + torch.sqrt(1 - r * (mean @ mean)))


def cosine(u: Tensor, v: Tensor) -> Tensor:
    return u @ v / (u.norm() * v.norm())


class Reference:
    """Terms of eq. 14 for one batch.

    Args:
        image_tangents: (B, D) float64.
        text_tangents: name -> (D,) float64.
        labels: B leaf names.
        trees: one ``{leaf: [anc_1, ..., anc_L]}`` each.
        mask: "true" masks HNSA negatives by the true node; "predicted", the mistake, by the nearest one.
    """

    def __init__(
        self,
        image_tangents,
        text_tangents,
        labels,
        trees,
        *,
        r=1.0,
        kappa=1.0,
        vic_radius=1.0,
        vic_factor=0.9,
        logit_scale=1.0,
        hnsa="both",
        score="hyperbolic",
        kappa_scale=None,
        pooling="midpoint",
        level_weights=None,
        gap_margin=0.02,
        gap_norm="tangent",
        edge_reduction="sum",
        intra_gap="label",
        mask="true",
    ):
        self.images = [exp0(v, r) for v in image_tangents]
        self.texts = {name: exp0(v, r) for name, v in text_tangents.items()}
        self.labels, self.r, self.kappa, self.vic_radius = labels, r, kappa, vic_radius
        self.vic_factor, self.logit_scale, self.hnsa, self.score = vic_factor, logit_scale, hnsa, score
        self.pooling, self.level_weights = pooling, level_weights
        usual = 1.0 if score == "cosine" else 0.25
        self.kappa_scale = usual if kappa_scale is None else kappa_scale
        self.gap_margin = gap_margin / math.sqrt(r)
        self.gap_norm, self.edge_reduction = gap_norm, edge_reduction
        self.intra_gap_reading, self.mask = intra_gap, mask
        self.chains = [{leaf: [leaf, *path] for leaf, path in tree.items()} for tree in trees]

    def sigma(self, u: Tensor, v: Tensor) -> Tensor:
        if self.score == "cosine":
            return self.kappa_scale * self.logit_scale * cosine(u, v)
        d = distance(u, v, self.r)
        if self.score == "hyperbolic":
            return -self.kappa_scale * self.kappa * d
        median = self.vic_radius / self.vic_factor
        return -self.kappa_scale * self.kappa * d * d / (2 * median)  # slope -kappa at the median

    def points(self, chains, level: int) -> list[tuple[Tensor, str]]:
        """(point, true node) of a level."""
        nodes = [chains[label][level] for label in self.labels]
        if level == 0 or self.pooling == "none":
            return list(zip(self.images, nodes))
        return [
            (einstein_midpoint([u for u, n in zip(self.images, nodes) if n == node], self.r), node)
            for node in sorted(set(nodes))
        ]

    def level_loss(self, chains, level: int) -> Tensor:
        depth = len(next(iter(chains.values())))
        here = sorted({chain[level] for chain in chains.values()})
        losses = []
        for u, true in self.points(chains, level):
            judge = true
            if self.mask == "predicted":
                judge = min(here, key=lambda node: float(distance(u, self.texts[node], self.r)))
            terms = [self.sigma(u, self.texts[w]) for w in here]
            for other, wanted in ((level - 1, ("both", "lower")), (level + 1, ("both", "upper"))):
                if not 0 <= other < depth or self.hnsa not in wanted:
                    continue
                edges = {(chain[level], chain[other]) for chain in chains.values()}
                for w in sorted({chain[other] for chain in chains.values()}):
                    if (judge, w) not in edges:
                        terms.append(self.sigma(u, self.texts[w]))
            losses.append(torch.logsumexp(torch.stack(terms), 0) - self.sigma(u, self.texts[true]))
        return sum(losses) / len(losses)

    def hita(self) -> Tensor:
        total = 0.0
        for chains in self.chains:
            levels = len(next(iter(chains.values())))
            for level in range(levels):
                weight = 1 - level / levels if self.level_weights is None else self.level_weights[level]
                total = total + weight * self.level_loss(chains, level)
        return total

    def vic(self) -> Tensor:
        gaps = [
            distance(u, self.texts[c], self.r) - self.vic_radius for u, c in zip(self.images, self.labels)
        ]
        return len(self.chains) * mean_hinge(gaps)

    def gaps(self) -> Tensor:
        return self.label_gap() + self.level_gap() + self.intra_gap()

    def label_gap(self) -> Tensor:
        total = 0.0
        for chains in self.chains:
            gaps = []
            levels = len(next(iter(chains.values())))
            for level in range(levels - 1):
                for child, parent in sorted({(c[level], c[level + 1]) for c in chains.values()}):
                    if child != parent:
                        gaps.append(self.norm(self.texts[parent]) - self.norm(self.texts[child]))
            total = total + self.over_edges([gap + self.gap_margin for gap in gaps])
        return total

    def level_gap(self) -> Tensor:
        total = 0.0
        for chains in self.chains:
            levels, placed = len(next(iter(chains.values()))), set()
            medians, counts = [], []
            for level in range(levels):
                own = {chain[level] for chain in chains.values()} - placed
                if own:
                    medians.append(torch.stack([self.norm(self.texts[n]) for n in sorted(own)]).quantile(0.5))
                    into = {(c[level - 1], c[level]) for c in chains.values()} if level else set()
                    counts.append(sum(child != parent for child, parent in into))
                placed |= own
            terms = [
                count * torch.relu(upper - lower + self.gap_margin)
                for lower, upper, count in zip(medians, medians[1:], counts[1:])
            ]
            total = total + sum(terms) / (1 if self.edge_reduction == "sum" else max(sum(counts), 1))
        return total

    def over_edges(self, values: list[Tensor]) -> Tensor:
        return mean_hinge(values) * (len(values) if self.edge_reduction == "sum" else 1)

    def intra_gap(self) -> Tensor:
        total = 0.0
        if self.intra_gap_reading in ("label", "both"):
            total = total + len(self.chains) * mean_hinge(
                [
                    self.norm(self.texts[c]) - self.norm(u) + self.gap_margin
                    for u, c in zip(self.images, self.labels)
                ]
            )
        if self.intra_gap_reading in ("rollup", "both"):
            for chains in self.chains:
                gaps = []
                levels = len(next(iter(chains.values())))
                edges = {(c[i], c[i + 1]) for c in chains.values() for i in range(levels - 1)}
                parent_of = {child: parent for child, parent in edges if child != parent}
                # (point, node, images below it): each image has the edges on its way to the top.
                lower = [(u, label, 1) for u, label in zip(self.images, self.labels)]
                for level in range(1, levels):
                    members: dict[str, list[Tensor]] = {}
                    for u, label in zip(self.images, self.labels):
                        members.setdefault(chains[label][level], []).append(u)
                    upper = {node: einstein_midpoint(us, self.r) for node, us in members.items()}
                    for point, node, below in lower:
                        if node not in upper:  # otherwise only repeated, as padding
                            gap = self.norm(upper[parent_of[node]]) - self.norm(point)
                            gaps += [gap + self.gap_margin] * (below if self.edge_reduction == "sum" else 1)
                    lower = [(point, node, len(members[node])) for node, point in upper.items()]
                images = len(self.images) if self.edge_reduction == "sum" else len(gaps)
                total = total + sum(gap.clamp(min=0) for gap in gaps) / images
        return total

    def norm(self, u: Tensor) -> Tensor:
        if self.gap_norm == "ball":
            return u.norm()
        return torch.atanh(math.sqrt(self.r) * u.norm()) / math.sqrt(self.r)


def mean_hinge(values: list[Tensor]) -> Tensor:
    return sum(v.clamp(min=0) for v in values) / len(values)
