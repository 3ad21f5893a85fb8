"""Weighted sums of objectives on one shared attack and one forward."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import ClassVar

import torch
from torch import Tensor

from ..hierarchy import Forest
from ..options import refuse_idle
from .base import OBJECTIVES, Objective, Reference, Targets, TextNodes, View
from .hierarchical import TreeObjective

HEAD_OPTIONS = (
    "curvature",
    "ball_margin",
    "max_tangent_norm",
    "tangent_norm",
    "vic_factor",
    "level_scales",
    "gap_norm",
    "gap_margin",
)


@dataclass(kw_only=True)
class Composed(Objective):
    """Base of weighted sums of objectives; a subclass gives its members to `compose`.

    One attack maximises the weighted sum of the members' inner losses, and all members train on what it
    found, from one forward. Members without an attack of their own (`Clean`) train on the clean images beside
    those that have one, and do not steer it. What the trainer provides and which parameters train are unions
    over the members: a group that one member freezes trains if another one trains it. The attack is the
    universal one if it is a member's own, else that of the first member that has one; the text attack
    likewise.
    """

    parts: dict[str, Objective] = field(init=False, repr=False, compare=False, default_factory=dict)
    _unattacked: set[str] = field(init=False, repr=False, compare=False, default_factory=set)
    forest: Forest | None = field(init=False, repr=False, compare=False, default=None)

    def compose(self, parts: Mapping[str, Objective], weights: Mapping[str, float]) -> None:
        """Set the members and the weight of each.

        Raises:
            ValueError: a weight that is no positive number, members that want the one hyperbolic head with
                different geometries, or a member that freezes or trains what another one trains anyway.
        """
        self.parts, self._weights = dict(parts), {name: weights.get(name, 1.0) for name in parts}
        for name, weight in self._weights.items():
            if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < math.inf:
                raise ValueError(f"the weight of {name!r} is {weight!r}, but must be a positive number")
        _check_one_head(self.parts)
        _check_shared_groups(self.parts)
        attacks = [p.default_attack for p in parts.values() if p.default_attack != "none"] or ["none"]
        self._unattacked = {name for name, p in parts.items() if p.default_attack == "none" != attacks[0]}
        self.default_attack = "universal" if "universal" in attacks else attacks[0]
        steps = [p.default_attack_steps for p in parts.values() if p.default_attack == self.default_attack]
        self.default_attack_steps = max((count for count in steps if count is not None), default=None)
        sizes = {p.default_step_size for p in parts.values() if p.default_attack == self.default_attack}
        self.default_step_size = sizes.pop() if len(sizes) == 1 else None
        text_attacks = (p.default_text_attack for p in parts.values())
        self.default_text_attack = next((name for name in text_attacks if name != "none"), "none")
        self.citation = "\n\n".join(dict.fromkeys(p.citation for p in parts.values() if p.citation))

    def setup(self, class_names: Sequence[str], forest: Forest | None = None) -> None:
        """Set up every member and lay their text nodes side by side; equal nodes are shared."""
        super().setup(class_names)
        for part in self.parts.values():
            part.setup(class_names, forest)
        self.forest = next((part.forest for part in _tree_parts(self.parts)), None)
        self.nodes, rows = join_nodes(len(class_names), [part.nodes for part in self.parts.values()])
        self._rows = dict(zip(self.parts, rows))

    @property
    def needs(self) -> frozenset[str]:
        own = frozenset().union(*(part.needs for part in self.parts.values()))
        return own | {"clean"} if self._unattacked else own

    @property
    def attack_needs(self) -> frozenset[str]:
        return frozenset().union(*(part.attack_needs for part in self._attacked().values()))

    @property
    def uses_labels(self) -> bool:
        return any(part.uses_labels for part in self.parts.values())

    @property
    def num_levels(self) -> int:
        return max(part.num_levels for part in self.parts.values())

    @property
    def text_levels(self) -> Tensor | None:
        scaled = any(part.text_levels is not None for part in self.parts.values())
        return self.nodes.levels if scaled else None

    @property
    def trained_groups(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(group for part in self.parts.values() for group in part.trained_groups))

    @property
    def trains_on_attack(self) -> bool:
        return any(part.trains_on_attack for part in self._attacked().values())

    @property
    def reads_text_delta(self) -> bool:
        return any(part.reads_text_delta for part in self._attacked().values())

    @property
    def calibrates(self) -> bool:
        return any(part.calibrates for part in self.parts.values())

    def refuse_idle_head_options(self) -> None:
        """Of the members' one head: what none of them reads."""
        idle = [part.idle_head_options for part in _tree_parts(self.parts)]
        for part in _tree_parts(self.parts):
            unread = {
                name: why for name, why in part.idle_head_options.items() if all(name in o for o in idle)
            }
            refuse_idle(part, unread)

    def check_head(self, head) -> None:
        for part in self.parts.values():
            part.check_head(head)

    def calibrate(self, view: View, labels: Tensor) -> None:
        for name, part in self.parts.items():
            part.calibrate(self._own(name, view), labels)

    def inner_loss(self, view: View, targets: Targets) -> Tensor:
        """Weighted sum of the members' inner losses, 0-dim if all are, else (B,).

        A member's 0-dim loss is a mean over the batch; beside losses (B,) it counts once an image too.
        """
        losses = []
        for name, part in self._attacked().items():
            if _counts(part, view):
                loss = part.inner_loss(self._own(name, view), self._own_targets(name, targets))
                losses.append(self._weights[name] * (loss.flatten(1).sum(1) if loss.ndim > 1 else loss))
        return sum(losses)

    def loss(self, views: Sequence[View], targets: Targets) -> dict[str, Tensor]:
        """The members' terms times their weights, named ``<member>/<term>``."""
        terms = {}
        for name, part in self.parts.items():
            if name in self._unattacked:
                own = part.loss([self._own(name, targets.clean)], self._own_targets(name, targets))
            else:
                kept = [number for number, view in enumerate(views) if _counts(part, view)]
                own = part.loss(
                    [self._own(name, views[number]) for number in kept],
                    self._own_targets(name, targets, kept),
                )
            terms |= {f"{name}/{term}": self._weights[name] * value for term, value in own.items()}
        return terms

    def _attacked(self) -> dict[str, Objective]:
        return {name: part for name, part in self.parts.items() if name not in self._unattacked}

    def _own(self, name: str, side: View | Reference) -> View | Reference:
        """A view or reference with the text nodes of one member."""
        rows = self._rows[name]
        # None: a trained text tower encodes no nodes unless a member needs them.
        if len(side.text_features) in (0, len(rows)):
            return side
        if isinstance(side, Reference):
            return side._replace(text_features=_take(side.text_features, rows))
        delta = side.text_delta
        return side._replace(
            text_features=_take(side.text_features, rows),
            text_tangent=_take(side.text_tangent, rows),
            text_delta=delta if delta is None or len(delta) == 1 else _take(delta, rows),
        )

    def _own_targets(self, name: str, targets: Targets, kept: Sequence[int] = ()) -> Targets:
        """Targets as one member sees them, whose views are those of the numbers ``kept``."""
        attacked = targets.attacked_reference
        return Targets(
            targets.labels,
            None if targets.reference is None else self._own(name, targets.reference),
            None if attacked is None else tuple(self._own(name, attacked[number]) for number in kept),
            None if targets.clean is None else self._own(name, targets.clean),
        )


@OBJECTIVES.register
@dataclass(kw_only=True)
class Composite(Composed):
    """A weighted sum of any registered objectives, see `Composed`.

    ``Composite(members={"hier_robust": {"score": "cosine"}, "agft": {}}, weights={"agft": 0.5})``; one member
    of weight 1 is that objective exactly.

    Args:
        members: options of each member by the name it is registered under.
        weights: factor of each member's losses; 1 where absent.
    """

    name: ClassVar[str] = "composite"
    title: ClassVar[str] = "A weighted sum of objectives (hf_hierrobust)"

    members: dict[str, dict] = field(default_factory=lambda: {"hier_robust": {}, "agft": {}})
    weights: dict[str, float] | None = None

    def __post_init__(self):
        if not isinstance(self.members, Mapping) or not self.members:
            raise ValueError(f"members={self.members!r} must map names of objectives to their options")
        parts = {
            name: build_part(f"members[{name!r}]", name, options) for name, options in self.members.items()
        }
        weights = {} if self.weights is None else self.weights
        if not isinstance(weights, Mapping) or not weights.keys() <= parts.keys():
            raise ValueError(
                f"weights={weights!r} must map members to numbers; members are {', '.join(parts)}"
            )
        self.compose(parts, weights)
        self.title = f"The weighted sum of {' and '.join(parts)} (hf_hierrobust)"

    def options(self) -> dict:
        """Members with all their options, weights of all members."""
        members = {name: part.options() for name, part in self.parts.items()}
        return {"members": members, "weights": dict(self._weights)}


def build_part(argument: str, name: str, options: Mapping | None) -> Objective:
    """The objective of that name with these options.

    Raises:
        ValueError: for options that it does not take; the message begins with ``argument``.
        KeyError: an unknown name.
    """
    cls, options = OBJECTIVES.get(name), {} if options is None else options
    known = [f.name for f in fields(cls) if f.init]
    if not isinstance(options, Mapping) or not options.keys() <= set(known):
        raise ValueError(f"{argument}={options!r} must hold options of {name!r}: {', '.join(known)}")
    return cls(**options)


def join_nodes(num_classes: int, nodes: Sequence[TextNodes]) -> tuple[TextNodes, list[Tensor]]:
    """Text nodes of all members and the rows (N_m,) of each member's own among them.

    All have the same ``num_classes`` classes first. Further nodes are shared by members that have the same
    ones, such as those of one tree; the level rows kept are those of the first member with levels.
    """
    names, prompts = list(nodes[0].names[:num_classes]), []
    name_blocks, prompt_blocks = {(): 0}, {(): 0}
    for member in nodes:
        for block, blocks, joined in (
            (member.names[num_classes:], name_blocks, names),
            (member.prompts, prompt_blocks, prompts),
        ):
            if block not in blocks:
                blocks[block] = len(joined)
                joined += block
    rows = []
    for member in nodes:
        block = member.names[num_classes:]
        named, filled = name_blocks[block], len(names) + prompt_blocks[member.prompts]
        spans = ((0, num_classes), (named, len(block)), (filled, len(member.prompts)))
        rows.append(torch.cat([start + torch.arange(count) for start, count in spans]))
    trees, own = next(((m.rows, own) for m, own in zip(nodes, rows) if m.rows), ((), None))
    levels = tuple(tuple(own[level] for level in tree) for tree in trees)
    return TextNodes(tuple(names), levels, tuple(prompts)), rows


def _take(values: Tensor, rows: Tensor) -> Tensor:
    """These rows; a plain slice where they are the first ones, as they mostly are."""
    if rows[-1] == len(rows) - 1:  # rows ascend
        return values[: len(rows)]
    return values[rows.to(values.device)]


def _counts(part: Objective, view: View) -> bool:
    """Whether a view is meant for a member: one without levels has those of the leaves."""
    return view.levels is None or part.num_levels > 1 or 0 in view.levels


def _leaf_parts(parts: Mapping[str, Objective]) -> Iterator[Objective]:
    for part in parts.values():
        if isinstance(part, Composed):
            yield from _leaf_parts(part.parts)
        else:
            yield part


def _tree_parts(parts: Mapping[str, Objective]) -> Iterator[TreeObjective]:
    return (part for part in _leaf_parts(parts) if isinstance(part, TreeObjective))


def _check_shared_groups(parts: Mapping[str, Objective]) -> None:
    every = list(_leaf_parts(parts))
    for part in _tree_parts(parts):
        for option, group in (("train_text_projection", "text_projection"), ("train_scales", "hier_head")):
            others = (other.name for other in every if other is not part and group in other.trained_groups)
            if trainer := next(others, None):
                refuse_idle(
                    part, {option: f"on {part.name!r} beside {trainer!r}, which trains {group} anyway"}
                )


def _check_one_head(parts: Mapping[str, Objective]) -> None:
    trees = list(_tree_parts(parts))
    for other in trees[1:]:
        for option in HEAD_OPTIONS:
            mine, theirs = getattr(trees[0], option), getattr(other, option)
            if mine != theirs:
                raise ValueError(
                    f"{trees[0].name!r} has {option}={mine!r} and {other.name!r} has {theirs!r}, but they "
                    "share the model's one hyperbolic head: give them the same value"
                )
