"""The classifiers a model offers at each level of a class tree (OC-16, OC-22)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..data import ClassSet
from ..geometry import Polar
from ..hierarchy import LabelTree, node_names
from ..modeling import PixelPipeline, RobustDualEncoder, encode_prompts
from .rollup import roll_up
from .shared import Parts, parts_of
from .zero_shot import ZeroShotClassifier

USUAL_CLASSIFIERS = ("cosine", "hyperbolic", "rollup", "rollup-hyperbolic")
CLASSIFIERS = (*USUAL_CLASSIFIERS, "path", "path-hyperbolic")


@dataclass(frozen=True)
class LevelClassifier:
    """One way to name the node of an image at one level.

    Attributes:
        level: 0 for the leaves.
        name: ``cosine`` and ``hyperbolic`` score prompts of the level's own nodes (OC-22 a, b);
            ``rollup`` and ``rollup-hyperbolic`` sum leaf probabilities within each node (OC-22 c);
            ``path`` and ``path-hyperbolic`` join the levels: a leaf's score plus those of its ancestors,
            rolled up above the leaves.
        classifier: pixels (B, 3, H, W) in [0, 1] -> logits over the level's nodes, fp32.
        search: the same under bf16 autocast, for attack gradients.
        to_node: (K,) node of each leaf; nodes with the same prompt are one (`merge_twins`).
    """

    level: int
    name: str
    classifier: Callable[[Tensor], Tensor]
    search: Callable[[Tensor], Tensor]
    to_node: Tensor


def check_classifiers(names: Sequence[str]) -> None:
    """Refuse unknown classifier names: silently keeping none would leave nothing to measure.

    Raises:
        ValueError: lists the known ones.
    """
    unknown = [name for name in names if name not in CLASSIFIERS]
    if unknown:
        raise ValueError(f"unknown classifiers {unknown}: choose from {', '.join(CLASSIFIERS)}")


class _Derived:
    """Logits computed from another classifier's."""

    def __init__(self, base: ZeroShotClassifier, derive: Callable[[Tensor], Tensor]):
        self._base, self._derive = base, derive

    def __call__(self, pixels: Tensor) -> Tensor:
        return self._derive(self._base(pixels))

    @property
    def points(self) -> Polar:
        return self._base.points

    def with_autocast(self, dtype: torch.dtype | None) -> _Derived:
        return _Derived(self._base.with_autocast(dtype), self._derive)

    def parts(self) -> Parts:
        key, stem, head = parts_of(self._base)
        return Parts(key, stem, lambda found: self._derive(head(found)))


def level_prompts(class_set: ClassSet, tree: LabelTree | None, template: str | None) -> list[list[list[str]]]:
    """Prompts of each level's nodes, one a template; only leaves without a tree.

    Args:
        tree: aligned with the class set.
        template: replaces the class set's own templates.
    """
    if template:
        class_set = replace(class_set, templates=(template,))
    return [class_set.prompts(names) for names in node_names(class_set.class_names, tree)]


def level_classifiers(
    model: RobustDualEncoder,
    pipeline: PixelPipeline,
    tokenizer,
    class_set: ClassSet,
    tree: LabelTree | None = None,
    *,
    template: str | None = None,
    names: Sequence[str] | None = None,
) -> list[LevelClassifier]:
    """All classifiers of a model, leaf level first.

    Hyperbolic ones are offered only if the model's head is calibrated.

    Args:
        tree: without one only the leaf level exists.
        template: replaces the class set's own templates.
        names: keep these classifiers; None keeps the usual ones, all but those that join levels.

    Raises:
        ValueError: a name that no classifier has.
    """
    check_classifiers(names or ())
    wanted = names or USUAL_CLASSIFIERS
    tree = tree and tree.align(class_set.class_names)
    levels = level_prompts(class_set, tree, template)
    states = [encode_prompts(model, tokenizer, prompts) for prompts in levels]
    depths = [tree.own_levels(level) for level in range(len(levels))] if tree else [None]
    maps = [tree.ancestors(level) for level in range(len(levels))] if tree else [torch.arange(len(class_set))]
    scores = ("cosine", "hyperbolic") if model.hier_head.calibrated else ("cosine",)
    found = []
    for score in scores:
        suffix = "" if score == "cosine" else "-hyperbolic"
        own = [
            ZeroShotClassifier(model, pipeline, level_states, score, prompts=prompts, levels=own_levels)
            for level_states, prompts, own_levels in zip(states, levels, depths)
        ]
        for level, to_node in enumerate(maps):
            found.append((level, score, *merge_twins(own[level], levels[level], to_node)))
            if level > 0:
                rolled = _Derived(own[0], _roller(to_node, len(levels[level])))
                found.append((level, f"rollup{suffix}", rolled, to_node))
            if tree and f"path{suffix}" in wanted:
                joined = ZeroShotClassifier(
                    model,
                    pipeline,
                    torch.cat(states),
                    score,
                    prompts=[p for level in levels for p in level],
                    levels=torch.cat(depths),
                )
                path = _Derived(joined, _path(maps, [len(prompts) for prompts in levels], level))
                found.append((level, f"path{suffix}", path, to_node))
    found = [
        LevelClassifier(level, name, classifier, classifier.with_autocast(torch.bfloat16), to_node)
        for level, name, classifier, to_node in found
        if name in wanted
    ]
    return sorted(found, key=lambda c: c.level)


def merge_twins(
    classifier: Callable[[Tensor], Tensor], prompts: Sequence[str] | Sequence[Sequence[str]], to_node: Tensor
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """A classifier that counts classes with equal prompts, which no image tells apart, as one.

    Args:
        classifier: pixels -> logits (B, N), with ``with_autocast``.
        prompts: of each of the N nodes, one or T.
        to_node: (K,) node of each leaf.

    Returns:
        The classifier, with as many logits as there are different prompts, and (K,) the place of each leaf's
        node among them; both unchanged where there are no twins. A warning names the twins.
    """
    first: dict[tuple[str, ...], int] = {}
    rows = [(row,) if isinstance(row, str) else tuple(row) for row in prompts]
    kept = [first.setdefault(row, place) for place, row in enumerate(rows)]
    columns = torch.tensor(sorted(set(kept)))
    if len(columns) == len(kept):
        return classifier, to_node
    twins = [f"{place} and {twin} ({rows[twin][0]!r})" for twin, place in enumerate(kept) if place != twin]
    warnings.warn(
        f"classes with the same prompt are counted as one: {', '.join(twins[:5])}"
        + (f" and {len(twins) - 5} more" if len(twins) > 5 else ""),
        stacklevel=3,
    )
    place = torch.searchsorted(columns, torch.tensor(kept)).to(to_node.device)
    return _Derived(classifier, _selector(columns)), place[to_node]


def _selector(columns: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda logits: logits[:, columns.to(logits.device)]


def _roller(to_node: Tensor, num_nodes: int) -> Callable[[Tensor], Tensor]:
    return lambda logits: roll_up(logits, to_node, num_nodes)


def _path(maps: list[Tensor], sizes: list[int], level: int) -> Callable[[Tensor], Tensor]:
    """Sum of log-probabilities along each leaf's path to the top, rolled up to ``level``."""

    def derive(logits: Tensor) -> Tensor:
        blocks = logits.split(sizes, dim=1)
        leaf = sum(block.log_softmax(1)[:, to_node.to(block.device)] for block, to_node in zip(blocks, maps))
        return leaf if level == 0 else roll_up(leaf, maps[level], sizes[level])

    return derive
