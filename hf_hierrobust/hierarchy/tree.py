"""Class trees: the levels, edges and names that hierarchical losses and attacks read."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from ..files import FileFormatError, read_json
from .checks import (
    TreeError,
    check_aliases,
    check_display,
    check_levels,
    check_node_names,
    check_paths,
    check_texts,
)
from .leaf_names import LeafNames

__all__ = ["LabelTree", "TreeError"]


@dataclass(frozen=True)
class LabelTree:
    """Levels ``0..L`` over one set of classes (OC-3): level 0 holds the leaves, level L the top nodes.

    Build it with `from_paths` or `from_json`, which validate. Every leaf has one ancestor at every level; a
    class too shallow for a level repeats its own key there (a *self-loop*). Leaves keep the order they were
    given in, nodes of upper levels are sorted by key. A top level with a single node is accepted, and
    contributes exactly zero to a cross-entropy over its level. With L = 0 the tree is flat (leaf-only).

    Attributes:
        name: what results call the tree.
        levels: node keys of each level, L+1 tuples of lengths K_0 > K_1 > ... > K_L.
        parents: ``parents[l][i]`` is the index in level l+1 of the parent of node i of level l; L tuples.
        display: key -> text that goes into the prompt; the key itself where absent.
        source: where the tree comes from.
        licence: terms of the source.
        aliases: leaf -> further names by which data sets call it; two leaves may share one.
    """

    name: str
    levels: tuple[tuple[str, ...], ...]
    parents: tuple[tuple[int, ...], ...]
    display: Mapping[str, str] = field(default_factory=dict, hash=False)
    source: str = ""
    licence: str = ""
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        check_texts(self.name, self.source, self.licence)
        check_node_names(self.levels, self.display)
        sizes = [len(level) for level in self.levels]
        if [len(p) for p in self.parents] != sizes[:-1] or any(
            not 0 <= i < above for p, above in zip(self.parents, sizes[1:]) for i in p
        ):
            raise TreeError(
                f"parents must give each node an index in the next level; level sizes are {sizes}"
            )

    @classmethod
    def from_paths(
        cls,
        paths: Mapping[str, Sequence[str]],
        *,
        name: str,
        display: Mapping[str, str] | None = None,
        source: str = "",
        licence: str = "",
        aliases: Mapping[str, Sequence[str]] | None = None,
    ) -> LabelTree:
        """Tree of ``{leaf: [anc_1, ..., anc_L]}``, ancestors from the lowest to the most general.

        Raises:
            TreeError: two parents, cycle, gap, duplicate leaf, a level that merges nothing, a display name
                that is unknown or not unique, aliases of no leaf; the message names the class.
        """
        check_paths(paths)
        levels, parents = _levels_of_paths(paths)
        check_levels(levels, parents)
        check_display(levels, display or {})
        aliases = check_aliases(levels[0], {} if aliases is None else aliases)
        return cls(name, levels, parents, dict(display or {}), source, licence, aliases)

    @classmethod
    def from_json(cls, source: str | Path | Mapping) -> LabelTree:
        """Tree of a JSON file or of what `to_json` returned; a bare ``{leaf: [...]}`` is accepted too.

        Raises:
            TreeError: the file is no such JSON, repeats a key, or holds an invalid tree.
            FileNotFoundError: there is no such file.
        """
        default_name = "tree"
        if not isinstance(source, Mapping):
            path, default_name = Path(source), Path(source).stem
            try:
                source = read_json(path)
            except FileFormatError as error:
                raise TreeError(str(error)) from error
            try:
                return cls._from_mapping(source, default_name)
            except TreeError as error:
                raise TreeError(f"{path}: {error}") from error
        return cls._from_mapping(source, default_name)

    @classmethod
    def _from_mapping(cls, source: object, default_name: str) -> LabelTree:
        if not isinstance(source, Mapping):
            raise TreeError(f"a tree is a JSON object, got {type(source).__name__}")
        if not isinstance(source.get("paths"), Mapping):
            return cls.from_paths(source, name=default_name)
        unknown = set(source) - {"name", "source", "licence", "paths", "display", "aliases"}
        if unknown:
            raise TreeError(
                f"unknown keys {sorted(unknown)} in a tree; it has name, source, licence, paths, display, "
                "aliases"
            )
        return cls.from_paths(
            source["paths"],
            name=source.get("name") or default_name,
            display=source.get("display"),
            source=source.get("source", ""),
            licence=source.get("licence", ""),
            aliases=source.get("aliases"),
        )

    def to_json(self) -> dict[str, object]:
        """JSON object that `from_json` turns into an equal tree."""
        aliases = {leaf: list(names) for leaf, names in self.aliases.items()}
        return {
            "name": self.name,
            "source": self.source,
            "licence": self.licence,
            "paths": {chain[0]: list(chain[1:]) for chain in self._chains},
            "display": dict(self.display),
        } | ({"aliases": aliases} if aliases else {})

    def align(self, class_names: Sequence[str]) -> LabelTree:
        """The tree with its leaves in the order of a data set's class names.

        Names match a leaf's key or else its prompt name or one of its aliases, after lower-casing and turning
        ``_``, ``-`` and blanks into one space; leaves keep the tree's keys. Leaves that ``class_names`` lacks
        are dropped with the nodes that lose their last leaf; a level that then merges nothing is dropped too,
        with a warning, as level numbers shift. A repeated name (ImageNet has "missile" and "sunglasses"
        twice) is resolved by position if every leaf is called as the class at its place.

        Raises:
            TreeError: classes the tree lacks, each with its nearest names, two classes for one leaf, or a
                name that several leaves have.
        """
        chosen = [self._chains[place] for place in self._leaf_names.match(class_names)]
        paths = {leaf: path for leaf, *path in chosen}
        sizes = [len(paths)] + [len({path[level] for path in paths.values()}) for level in range(self.depth)]
        useless = [level for level in range(1, len(sizes)) if sizes[level] == sizes[level - 1]]
        if useless:
            warnings.warn(
                f"tree {self.name!r}: levels {useless} merge nothing among {len(paths)} classes; dropped",
                stacklevel=2,
            )
            paths = {
                leaf: [node for level, node in enumerate(path, 1) if level not in useless]
                for leaf, path in paths.items()
            }
        kept = {node for leaf, path in paths.items() for node in (leaf, *path)}
        display = {key: text for key, text in self.display.items() if key in kept}
        aliases = {leaf: names for leaf, names in self.aliases.items() if leaf in paths}
        levels, parents = _levels_of_paths(paths)
        return LabelTree(self.name, levels, parents, display, self.source, self.licence, aliases)

    def differs_from(self, other: LabelTree) -> int | None:
        """First place at which two trees' leaves are not one class; None where both are over the same.

        Leaves of one class share a key, prompt name or alias; where both trees have the same keys, the key.
        """
        place = self._leaf_names.first_other(other._leaf_names)
        shorter = min(len(self.leaves), len(other.leaves))
        return shorter if place is None and len(self.leaves) != len(other.leaves) else place

    def align_to(self, other: LabelTree) -> LabelTree:
        """The tree with its leaves in the order of another tree's, see `align`."""
        return self.align(other._leaf_names.shared_with(self._leaf_names))

    @property
    def num_levels(self) -> int:
        """L+1."""
        return len(self.levels)

    @property
    def depth(self) -> int:
        """L, the number of levels above the leaves."""
        return len(self.levels) - 1

    @property
    def leaves(self) -> tuple[str, ...]:
        """Keys of level 0."""
        return self.levels[0]

    @property
    def sizes(self) -> tuple[int, ...]:
        """``(K_0, ..., K_L)``."""
        return tuple(len(level) for level in self.levels)

    @property
    def hash(self) -> str:
        """16 hex digits of the SHA-256 of paths and prompt names, whatever the leaf order, name or source."""
        paths = {chain[0]: chain[1:] for chain in self._chains}
        names = {key: self.display.get(key, key) for level in self.levels for key in level}
        canonical = json.dumps({"display": names, "paths": paths}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def display_names(self, level: int) -> list[str]:
        """Prompt names of the nodes of ``level``, K_level texts."""
        self._check_level(level)
        return [self.display.get(key, key) for key in self.levels[level]]

    def levels_of(self, class_name: str) -> tuple[str, ...]:
        """Keys of a class and its ancestors, L+1 of them, leaf first."""
        return self._chains[self._leaf_names.find(class_name)]

    def superclass(self, leaf: str, level: int) -> str:
        """Key of the ancestor of ``leaf`` at ``level``."""
        self._check_level(level)
        return self.levels_of(leaf)[level]

    def ancestors(self, level: int) -> torch.Tensor:
        """Index in ``level`` of the ancestor of each leaf, long ``(K_0,)``."""
        return self.ancestor_map(0, level)

    def ancestor_map(self, lower: int, upper: int) -> torch.Tensor:
        """Index in level ``upper`` of the ancestor of each node of level ``lower``, long ``(K_lower,)``."""
        self._check_level(lower)
        self._check_level(upper)
        if lower > upper:
            raise TreeError(f"ancestors lie upwards: lower={lower} must not exceed upper={upper}")
        index = torch.arange(len(self.levels[lower]))
        for level in range(lower, upper):
            index = torch.tensor(self.parents[level])[index]
        return index

    def self_loops(self, level: int) -> torch.Tensor:
        """Which nodes of ``level`` are only repeated, as padding, at the next level; bool ``(K_level,)``."""
        parent = self.ancestor_map(level, level + 1).tolist()
        return torch.tensor([key == self.levels[level + 1][p] for key, p in zip(self.levels[level], parent)])

    def own_levels(self, level: int) -> torch.Tensor:
        """Lowest level at which each node of ``level`` stands: its own, or one that is repeated here."""
        lowest = {}
        for number, keys in enumerate(self.levels):
            for key in keys:
                lowest.setdefault(key, number)
        return torch.tensor([lowest[key] for key in self.levels[level]])

    def edges(self, level: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Child and parent index of each edge from ``level`` upwards but self-loops; two long ``(E,)``."""
        child = (~self.self_loops(level)).nonzero().squeeze(1)
        return child, self.ancestor_map(level, level + 1)[child]

    def edge_mask(self, level: int, other: int) -> torch.Tensor:
        """Which nodes of two adjacent levels are joined (self-loops are edges); bool ``(K_level, K_other)``.

        HNSA keeps as negatives the nodes where this is False.
        """
        if abs(level - other) != 1:
            raise TreeError(f"edges join adjacent levels, got level={level} and other={other}")
        lower, upper = min(level, other), max(level, other)
        parent = self.ancestor_map(lower, upper)
        mask = torch.zeros(len(self.levels[lower]), len(self.levels[upper]), dtype=torch.bool)
        mask[torch.arange(len(parent)), parent] = True
        return mask if level == lower else mask.T.contiguous()

    @cached_property
    def _chains(self) -> list[tuple[str, ...]]:
        """Keys from each leaf to its top node, in the order of the leaves."""
        maps = [self.ancestors(level).tolist() for level in range(self.num_levels)]
        return [tuple(keys[i] for keys, i in zip(self.levels, indices)) for indices in zip(*maps)]

    @cached_property
    def _leaf_names(self) -> LeafNames:
        return LeafNames(self.name, self.leaves, self.display, self.aliases)

    def _check_level(self, level: int) -> None:
        if not 0 <= level < self.num_levels:
            raise TreeError(f"level={level} is not in tree {self.name!r}, whose levels are 0..{self.depth}")


def _levels_of_paths(
    paths: Mapping[str, Sequence[str]],
) -> tuple[tuple[tuple[str, ...], ...], tuple[tuple[int, ...], ...]]:
    chains = [(leaf, *path) for leaf, path in paths.items()]
    levels = [tuple(paths)]
    levels += [tuple(sorted({chain[level] for chain in chains})) for level in range(1, len(chains[0]))]
    parents = []
    for level, keys in enumerate(levels[:-1]):
        above = {key: index for index, key in enumerate(levels[level + 1])}
        parent = {chain[level]: above[chain[level + 1]] for chain in chains}
        parents.append(tuple(parent[key] for key in keys))
    return tuple(levels), tuple(parents)
