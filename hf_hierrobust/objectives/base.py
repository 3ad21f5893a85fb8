"""What every training objective is: an inner loss for the attacker and named terms for the optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..hierarchy import Forest
from ..registry import Registry

OBJECTIVES: Registry[Objective] = Registry("objective", "hf_hierrobust.objectives")


class View(NamedTuple):
    """One batch of images and the text nodes as an objective sees them.

    Attributes:
        image_features, text_features: (B, D) and (N, D), projected, not normalised.
        image_tangent, text_tangent: the same before the exponential map, (B, D) and (N, D), fp32.
        logit_scale: CLIP's multiplier, 0-dim.
        head: the model's hyperbolic head, for its constants and maps (never for trained parameters,
            which already acted on the tangents).
        text_delta: perturbation of the text tangents, (N, D) or (1, D), or None.
        levels: tree levels this view counts for, None for all.
    """

    image_features: Tensor
    text_features: Tensor
    image_tangent: Tensor
    text_tangent: Tensor
    logit_scale: Tensor
    head: object
    text_delta: Tensor | None = None
    levels: tuple[int, ...] | None = None


@dataclass(frozen=True)
class TextNodes:
    """Rows of the text states that an objective needs.

    Attributes:
        names: one name per row, filled into the prompt template; the leaves come first.
        rows: for each tree and level the (K_l,) row of each node.
    """

    names: tuple[str, ...]
    rows: tuple[tuple[Tensor, ...], ...] = ()

    @classmethod
    def of_forest(cls, class_names: Sequence[str], forest: Forest) -> TextNodes:
        """Leaf rows are shared by all trees; a node padded over several levels keeps one row."""
        names, all_rows = list(class_names), []
        for tree in forest:
            row_of = {key: row for row, key in enumerate(tree.leaves)}
            rows = [torch.arange(len(tree.leaves))]
            for level in range(1, tree.num_levels):
                for key, shown in zip(tree.levels[level], tree.display_names(level)):
                    if key not in row_of:
                        row_of[key] = len(names)
                        names.append(shown)
                rows.append(torch.tensor([row_of[key] for key in tree.levels[level]]))
            all_rows.append(tuple(rows))
        return cls(tuple(names), tuple(all_rows))


@dataclass(kw_only=True)
class Objective:
    """Base of all objectives; subclasses are dataclasses whose fields are their options.

    Class attributes say what the rest of the package needs to know: the trainer, the card and the
    tests read them.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    paper_id: ClassVar[str] = ""
    citation: ClassVar[str] = ""
    trains: ClassVar[tuple[str, ...]] = ("vision",)
    """Parameter groups: ``vision`` (tower and projection), ``text_projection``, ``hier_head``, ``text``."""
    default_attack: ClassVar[str] = "pgd"
    needs_tree: ClassVar[bool] = False

    nodes: TextNodes = field(init=False, repr=False, compare=False, default=None)

    def setup(self, class_names: Sequence[str], forest: Forest | None = None) -> None:
        """Bind the objective to the classes of a data set; called once before training."""
        self.nodes = TextNodes(tuple(class_names))

    @property
    def num_levels(self) -> int:
        """Levels that an attack may address; 1 is a flat set of classes."""
        return 1

    @property
    def trained_groups(self) -> tuple[str, ...]:
        """The parameter groups that train under the chosen options."""
        return self.trains

    def calibrate(self, view: View, labels: Tensor) -> None:
        """Set constants from a clean batch at the start of training; nothing by default."""

    def inner_loss(self, view: View, labels: Tensor) -> Tensor:
        """What the attacker maximises; any shape, its sum counts."""
        raise NotImplementedError

    def loss(self, views: Sequence[View], labels: Tensor) -> dict[str, Tensor]:
        """Named 0-dim terms whose sum is minimised.

        Args:
            views: one per training perturbation (most attacks make one).
            labels: (B,) leaf indices.
        """
        raise NotImplementedError

    def options(self) -> dict:
        """The options as plain values, for records, cards and ``config.hier_robust``."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.init}
