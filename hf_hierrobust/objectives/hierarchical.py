"""What objectives over class trees share: levels, text rows, the head's geometry, scores, HNSA negatives."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..geometry import Polar, check_room, tangent_margin
from ..hierarchy import Forest, LabelTree, as_forest
from ..options import check_choice, check_flag, check_numbers, refuse_idle
from .base import Objective, TextNodes, View


@dataclass(kw_only=True)
class TreeObjective(Objective):
    """Base of objectives over one tree or a forest.

    Args:
        hnsa: adjacent levels whose unjoined nodes are extra negatives.
        score: ``"hyperbolic"`` ``-kappa d_r``, ``"squared"`` ``-kappa' d_r^2`` with the same slope at the
            median distance, or ``"cosine"`` (OC-8).
        level_weights: omega_l from the leaves upwards; None is the paper's ``1 - l / (L + 1)``.
        vic_factor: neighbourhood radius as a fraction of the initial median distance (OC-15).
        tangent_norm: median tangent norm of the leaves' texts at the start, in units of 1/sqrt(r); None keeps
            the scales 1/sqrt(D) (OC-5).
        level_scales: one tangent scale a level for the texts, started in order of depth (OC-12); False
            has one for all, and no checkpoint whose head has one a level.
        gap_norm: which norms encode depth: ``"tangent"`` or, as printed, ``"ball"``, which saturates (OC-12).
        gap_margin: zeta_gap, by which levels lie apart, in units of 1/sqrt(r) (OC-15).
        train_text_projection: False freezes it (HierRobust trains it).
        train_scales: False freezes the tangent scales (OC-2).
        curvature: r of a ball of curvature -r (OC-6).
        ball_margin: distance xi kept from the edge, as a fraction of the ball's radius (OC-4).
        max_tangent_norm: clip of the tangent norm, in units of 1/sqrt(r) (OC-5).
    """

    trains: ClassVar[tuple[str, ...]] = ("vision", "text_projection", "hier_head")
    default_attack: ClassVar[str] = "universal"

    hnsa: Literal["both", "upper", "lower", "none"] = "both"
    score: Literal["hyperbolic", "squared", "cosine"] = "hyperbolic"
    level_weights: tuple[float, ...] | None = None
    vic_factor: float = 0.9
    tangent_norm: float | None = 0.5
    level_scales: bool = True
    gap_norm: Literal["tangent", "ball"] = "tangent"
    gap_margin: float = 0.02
    train_text_projection: bool = True
    train_scales: bool = True
    curvature: float = 1.0
    ball_margin: float = 1e-3
    max_tangent_norm: float = 4.0

    forest: Forest = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self):
        check_choice(self, "hnsa", ("both", "upper", "lower", "none"))
        check_choice(self, "score", ("hyperbolic", "squared", "cosine"))
        check_numbers(self, "vic_factor", "curvature", "max_tangent_norm", positive=True)
        check_choice(self, "gap_norm", ("tangent", "ball"))
        check_numbers(self, "ball_margin", "gap_margin")
        check_flag(self, "level_scales", "train_text_projection", "train_scales")
        weights = self.level_weights
        if weights is not None and not (
            isinstance(weights, (list, tuple))
            and all(isinstance(w, (int, float)) and not isinstance(w, bool) for w in weights)
            and all(0 <= w < math.inf for w in weights)
            and any(weights)
        ):
            raise ValueError(
                f"level_weights={weights!r} must be a list of finite numbers, none negative and one above 0"
            )
        if not self.ball_margin < 1:
            raise ValueError(
                f"ball_margin={self.ball_margin!r} must be below 1: it is a fraction of the ball's radius"
            )
        if self.tangent_norm is not None:
            check_numbers(self, "tangent_norm", positive=True)
            self._check_clip()

    def _check_clip(self) -> None:
        clip = min(self.max_tangent_norm, math.atanh(1 - self.ball_margin) if self.ball_margin else math.inf)
        if not self.tangent_norm < clip:
            raise ValueError(
                f"tangent_norm={self.tangent_norm!r} must be below {clip:.3g}, where max_tangent_norm and "
                "ball_margin clip norms: clipped ones are all equal and have no gradient"
            )

    def setup(self, class_names: Sequence[str], forest: Forest | None = None) -> None:
        """Align the trees with the classes and lay out text rows and HNSA masks."""
        if forest is None:
            raise ValueError(
                f"objective {self.name!r} needs a class tree: pass tree='cifar100' or a JSON file"
            )
        self.forest = as_forest(forest).align(class_names)
        self.nodes, self.num_classes = TextNodes.of_forest(class_names, self.forest), len(class_names)
        self._cache = {}  # of index tensors; an earlier set-up's belong to other trees
        if self.level_weights is not None and len(self.level_weights) != self.num_levels:
            raise ValueError(
                f"level_weights has {len(self.level_weights)} values but the deepest tree has "
                f"{self.num_levels} levels"
            )
        refuse_idle(self, self._idle_on_trees())

    def _idle_on_trees(self) -> dict[str, str]:
        """Options without effect on these trees, and why."""
        idle = {}
        asked, usual = (self._negatives(hnsa) for hnsa in (self.hnsa, type(self).hnsa))
        if asked == usual:
            idle["hnsa"] = f"on these trees, where it has the negatives of {type(self).hnsa!r}"
        if self.num_levels == 1:
            idle["level_scales"] = "on a tree without superclasses"
        return idle

    def _negatives(self, hnsa: str) -> list[tuple[LabelTree, int, int]]:
        """Tree, level and adjacent level of all extra negatives that count."""
        sides = {"both": (-1, 1), "upper": (1,), "lower": (-1,), "none": ()}[hnsa]
        return [
            (tree.name, level, level + side)
            for tree in self.forest
            for level, weight in enumerate(self._weights(tree))
            for side in sides
            if weight and 0 <= level + side < tree.num_levels
        ]

    def _weights(self, tree: LabelTree) -> list[float]:
        return [self._weight(level, tree.depth) for level in range(tree.num_levels)]

    @property
    def trained_groups(self) -> tuple[str, ...]:
        off = {"text_projection": not self.train_text_projection, "hier_head": not self.train_scales}
        return tuple(group for group in self.trains if not off.get(group))

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"tree", "text_nodes"})

    @property
    def num_levels(self) -> int:
        return max(tree.num_levels for tree in self.forest)

    @property
    def text_levels(self) -> Tensor | None:
        return self.nodes.levels if self.level_scales else None

    def calibrate(self, view: View, labels: Tensor) -> None:
        """Scales, kappa and neighbourhood radius from a clean batch; kept if the head has them already.

        Raises:
            ValueError: see `check_head`; or the levels cannot be placed (`place_levels`).
        """
        head = view.head
        self.check_head(head)
        if not head.calibrated:
            head.configure(**self._constants(head))
        features, levels, edges = view.text_features, self.text_levels, ()
        if levels is None:
            features = features[: self.num_classes]
        else:
            edges = [
                edge for tree, rows in zip(self.forest, self.nodes.rows) for edge in text_edges(tree, rows)
            ]
        scale, margin = float(view.logit_scale), (self.gap_margin, self.gap_norm)
        with self._naming_the_trees():
            head.calibrate(view.image_features, features, labels, scale, levels, edges, *margin)

    def check_head(self, head) -> None:
        """See `Objective.check_head`.

        Raises:
            ValueError: the head was calibrated with other constants, has a scale a level where
                ``level_scales=False`` wants one, or a new one has no room for the levels (`check_room`).
        """
        if not self.level_scales and head.text_levels > 1:
            raise ValueError(
                "level_scales=False trains one scale for all texts, but the checkpoint's hyperbolic head has "
                f"{head.text_levels}, one a level, and is deployed with them: use level_scales=True, or "
                "start from a model without the side file"
            )
        wanted = self._constants(head)
        if head.calibrated and wanted != head.constants:
            raise ValueError(
                f"objective_args ask for {wanted} but the checkpoint's hyperbolic head was calibrated with "
                f"{head.constants}: use the same, or start from a model without the side file"
            )
        if not head.calibrated and self.tangent_norm is not None:
            levels = 1 if self.text_levels is None else int(self.text_levels.max()) + 1
            margin = tangent_margin(self.gap_margin, self.tangent_norm, self.gap_norm)
            with self._naming_the_trees():
                check_room(levels, self.tangent_norm, margin)

    def _constants(self, head) -> dict[str, float | None]:
        """The head's constants as the options want them."""
        return {name: getattr(self, name) for name in head.constants}

    @contextmanager
    def _naming_the_trees(self) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise ValueError(f"tree {self.forest.name!r}: {error}") from None

    def _depths(self, head, points: Polar) -> Tensor:
        """Norms that encode depth, in units of 1/sqrt(r)."""
        return head.ball_norm(points) if self.gap_norm == "ball" else head.tangent_norm_of(points)

    def _lift(self, view: View) -> tuple[Polar, Polar]:
        """Images and text nodes as points of the ball; the text perturbation acts on the tangents."""
        tangent = view.text_tangent
        if view.text_delta is not None:
            tangent = tangent + view.text_delta
        return view.head.lift(view.image_tangent), view.head.lift(tangent)

    def _levels(
        self, view: View, device: torch.device
    ) -> Iterator[tuple[LabelTree, tuple[Tensor, ...], int, float]]:
        """Tree, its text rows, level and weight omega of every level that the view counts for."""
        for tree, rows in zip(self.forest, self._rows(device)):
            for level in range(tree.num_levels):
                if view.levels is None or level in view.levels:
                    yield tree, rows, level, self._weight(level, tree.depth)

    def _weight(self, level: int, depth: int) -> float:
        return 1 - level / (depth + 1) if self.level_weights is None else self.level_weights[level]

    def _competitors(
        self, tree: LabelTree, rows: tuple[Tensor, ...], level: int
    ) -> tuple[Tensor, Tensor | None]:
        """Text rows (K_l + J,) that compete at a level, its own first, then the J nodes of adjacent levels.

        The second is a (K_l, J) mask of those joined by an edge to each node of the level, or asked by the
        same prompt: they are no negatives of it (HNSA). None where there are none.
        """
        adjacent = [
            other
            for other, wanted in ((level - 1, ("both", "lower")), (level + 1, ("both", "upper")))
            if 0 <= other < tree.num_levels and self.hnsa in wanted
        ]
        index = torch.cat([rows[level], *(rows[other] for other in adjacent)])
        if not adjacent:
            return index, None
        return index, torch.cat([self._joined(tree, rows, level, other) for other in adjacent], dim=1)

    def _score(self, view: View, points: Polar, texts: Polar, scale: float) -> Tensor:
        """Scores (M, N), ``scale`` times those that have the slope of CLIP's own logits in the cosine."""
        head = view.head
        if self.score == "cosine":
            return scale * view.logit_scale * points.direction @ texts.direction.T
        if self.score == "hyperbolic":
            return scale * head.logits(points, texts)
        slope = self.vic_factor / (2 * head.vic_radius)  # 1 / (2 x median distance)
        return -scale * head.kappa * slope * head.distance(points, texts).square()

    # Index tensors are small; a cache per device keeps host-to-device copies out of the inner loop.
    def _rows(self, device) -> tuple[tuple[Tensor, ...], ...]:
        return self._cached(
            ("rows", device), lambda: tuple(tuple(r.to(device) for r in rows) for rows in self.nodes.rows)
        )

    def _edges(self, tree: LabelTree, rows: tuple[Tensor, ...]) -> list[tuple[Tensor, Tensor]]:
        device = rows[0].device
        return self._cached(
            ("edges", id(tree), device),
            lambda: [(child.to(device), parent.to(device)) for child, parent in text_edges(tree, rows)],
        )

    def _own_rows(self, tree: LabelTree, rows: tuple[Tensor, ...]) -> tuple[list[Tensor], Tensor]:
        """Text rows of each level's nodes that no level below has, and for each edge the step that it spans.

        Steps lie between neighbours of these levels, the lowest is 0. A level that only repeats the one below
        is left out.
        """

        def make() -> tuple[list[Tensor], Tensor]:
            parents = [parent for _, parent in self._edges(tree, rows) if len(parent)]
            steps = [step for step, parent in enumerate(parents) for _ in range(len(parent))]
            levels = [rows[0], *(parent.unique() for parent in parents)]
            return levels, torch.tensor(steps, dtype=torch.long, device=rows[0].device)

        return self._cached(("own", id(tree), rows[0].device), make)

    def _ancestors(self, tree: LabelTree, level: int, device) -> Tensor:
        return self._cached(("anc", id(tree), level, device), lambda: tree.ancestors(level).to(device))

    def _joined(self, tree: LabelTree, rows: tuple[Tensor, ...], level: int, other: int) -> Tensor:
        def make() -> Tensor:
            # Classes that a data set calls by one name (ImageNet's "missile" twice) have one prompt: padded,
            # each would be its own hard negative by way of its twin.
            number = {name: i for i, name in enumerate(dict.fromkeys(self.nodes.names))}
            mine, theirs = (
                torch.tensor([number[self.nodes.names[row]] for row in rows[at].tolist()])
                for at in (level, other)
            )
            joined = tree.edge_mask(level, other) | (mine[:, None] == theirs)
            return joined.to(rows[level].device)

        return self._cached(("joined", id(tree), level, other, rows[level].device), make)

    def _cached(self, key, make):
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]


def text_edges(tree: LabelTree, rows: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Text rows (children, parents) of each level's edges, self-loops left out."""
    for level in range(tree.depth):
        child, parent = tree.edges(level)
        yield rows[level].cpu()[child], rows[level + 1].cpu()[parent]
