"""Validation of class trees: every message names the offending class and the fix."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

from ..naming import check_name, check_text

MAX_LEVELS, MAX_LEAVES = 32, 50_000
"""Of a tree: levels above the leaves, and classes. WordNet has 19 levels, ImageNet-21k 21,841 classes."""


class TreeError(ValueError):
    """A class tree is inconsistent, or does not cover the classes it is asked for."""


def normalise(name: str) -> str:
    """Form in which class names are compared: lower case, ``_``, ``-`` and blanks as one space."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def nearest(name: str, names: Iterable[str], count: int = 3) -> str:
    """Up to ``count`` of ``names`` that look like ``name``, for an error message; '' if none does."""
    by_form = {normalise(candidate): candidate for candidate in names}
    found = difflib.get_close_matches(normalise(name), by_form, n=count, cutoff=0.6)
    return f" (nearest: {', '.join(repr(by_form[form]) for form in found)})" if found else ""


def check_texts(name: object, source: object, licence: object) -> None:
    """Refuse a tree's name that is no file name, and sources and licences that are not a line of text.

    Raises:
        TreeError: names the field.
    """
    try:
        check_name("name", name, file=True)
        check_text("source", source)
        check_text("licence", licence)
    except ValueError as error:
        raise TreeError(f"a tree's {error}") from None


def check_node_names(levels: Sequence[Sequence[str]], display: Mapping[str, str]) -> None:
    """Refuse node and prompt names that are empty, endless or hold control characters.

    Raises:
        TreeError: names the node.
    """
    try:
        for key in {node for level in levels for node in level}:
            check_name("node", key)
        for key, text in display.items():
            check_name(f"the display name of {key!r}", text)
    except ValueError as error:
        raise TreeError(str(error)) from None


def check_aliases(leaves: Sequence[str], aliases: object) -> dict[str, tuple[str, ...]]:
    """Further names of leaves, each a list of texts.

    Raises:
        TreeError: no such mapping, a key that is no leaf, or a name that is none.
    """
    if not isinstance(aliases, Mapping):
        raise TreeError(f"aliases must map leaves to lists of further names, got {_short(aliases)}")
    found, known = {}, set(leaves)
    for leaf, names in aliases.items():
        if leaf not in known:
            raise TreeError(f"aliases name an unknown leaf {leaf!r}{nearest(str(leaf), leaves)}")
        if not isinstance(names, (list, tuple)):
            raise TreeError(f"the aliases of {leaf!r} must be a list of names, got {_short(names)}")
        try:
            for name in names:
                check_name(f"an alias of {leaf!r}", name)
        except ValueError as error:
            raise TreeError(str(error)) from None
        found[leaf] = tuple(names)
    return found


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def check_paths(paths: Mapping[str, Sequence[str]]) -> None:
    """Refuse gaps, duplicate leaves, two parents, cycles and nodes at two levels that are no padding.

    Args:
        paths: leaf -> its ancestors, lowest first; all of one length L.

    Raises:
        TreeError: names the class and the node at fault.
    """
    if not isinstance(paths, Mapping) or not paths:
        raise TreeError(f"paths must be a non-empty mapping {{leaf: [anc_1, ..., anc_L]}}, got {paths!r}")
    if len(paths) > MAX_LEAVES:
        raise TreeError(f"the tree has {len(paths):,} classes: at most {MAX_LEAVES:,} are allowed")
    forms: dict[str, str] = {}
    first = next(iter(paths))
    for leaf, path in paths.items():
        if not isinstance(path, (list, tuple)):
            raise TreeError(f"the path of class {leaf!r} must be a list of ancestors, got {_short(path)}")
        if len(path) > MAX_LEVELS:
            raise TreeError(
                f"class {leaf!r} has {len(path):,} ancestors: at most {MAX_LEVELS} levels are allowed"
            )
        for node in (leaf, *path):
            if not isinstance(node, str) or not node.strip():
                raise TreeError(
                    f"gap in the path of class {leaf!r}: {_short(node)} is no node name, in "
                    f"{_short(list(path))}"
                )
        if len(path) != len(paths[first]):
            raise TreeError(
                f"gap in levels: class {leaf!r} has {len(path)} ancestors, {first!r} has "
                f"{len(paths[first])}; repeat the class itself to pad a shallow one"
            )
        other = forms.setdefault(normalise(leaf), leaf)
        if other != leaf:
            raise TreeError(
                f"duplicate leaves {other!r} and {leaf!r}: the same class name after normalisation"
            )
    _check_parents(paths)


def _check_parents(paths: Mapping[str, Sequence[str]]) -> None:
    chains = {leaf: (leaf, *path) for leaf, path in paths.items()}
    depth = len(next(iter(chains.values()))) - 1
    witness: list[dict[str, str]] = [{} for _ in range(depth + 1)]  # level -> node -> a leaf below it
    for leaf, chain in chains.items():
        for level, node in enumerate(chain):
            witness[level].setdefault(node, leaf)
    parent: dict[str, str] = {}
    for level in range(depth):
        for leaf, chain in chains.items():
            node, above = chain[level], chain[level + 1]
            other = witness[level][node]
            if chains[other][level + 1] != above:
                raise TreeError(
                    f"node {node!r} of level {level} has two parents: {chains[other][level + 1]!r} "
                    f"(class {other!r}) and {above!r} (class {leaf!r})"
                )
            if above != node:
                parent.setdefault(node, above)
    for start in parent:
        seen, node = [start], parent[start]
        while node in parent and node not in seen:
            seen.append(node)
            node = parent[node]
        if node == start:
            raise TreeError(f"cycle: {' -> '.join(repr(n) for n in [*seen, start])}")
    for level in range(depth):
        for node, leaf in witness[level].items():
            above = chains[leaf][level + 1]
            upper = next((u for u in range(level + 1, depth + 1) if node in witness[u]), None)
            if upper is not None and above != node:
                kind = "leaf" if level == 0 else f"node of level {level}"
                raise TreeError(
                    f"{kind} {node!r} (parent {above!r}) is also an ancestor of class "
                    f"{witness[upper][node]!r} at level {upper}: a node may be repeated upwards only as "
                    "padding of its own path"
                )


def check_levels(levels: Sequence[Sequence[str]], parents: Sequence[Sequence[int]]) -> None:
    """Refuse a level that merges nothing, that is, one with as many nodes as the level below it."""
    for level in range(1, len(levels)):
        if len(levels[level]) >= len(levels[level - 1]):
            node, above = levels[level - 1][0], levels[level][parents[level - 1][0]]
            raise TreeError(
                f"level {level} refines nothing: its {len(levels[level])} nodes repeat level {level - 1} "
                f"one by one (e.g. {node!r} -> {above!r}); drop the level or merge some of its nodes"
            )


def check_display(levels: Sequence[Sequence[str]], display: Mapping[str, str]) -> None:
    """Refuse names of unknown nodes, and equal prompts of different nodes in one or adjacent levels.

    Equal prompts give equal text embeddings: inside a level the nodes cannot be told apart, between adjacent
    levels one is the other's hard negative (HNSA) or should have the smaller norm.
    """
    if not isinstance(display, Mapping):
        raise TreeError(f"display must map nodes to their prompt names, got {_short(display)}")
    nodes = {node for level in levels for node in level}
    for key, text in display.items():
        if key not in nodes:
            raise TreeError(f"display names an unknown leaf or node {key!r}{nearest(key, nodes)}")
        if not isinstance(text, str) or not text.strip():
            raise TreeError(f"the display name of {key!r} must be a non-empty text, got {text!r}")
    below: dict[str, str] = {}
    for level, keys in enumerate(levels):
        here: dict[str, str] = {}
        for key in keys:
            text = " ".join(display.get(key, key).split()).casefold()
            if text in here:
                raise TreeError(
                    f"{here[text]!r} and {key!r} of level {level} share the display name {text!r}: their "
                    "prompts would be identical; give one of them another display name"
                )
            if below.get(text, key) != key:
                raise TreeError(
                    f"{below[text]!r} of level {level - 1} and {key!r} of level {level} share the display "
                    f"name {text!r}; use one key for both if the upper one pads the lower, else rename one"
                )
            here[text] = key
        below = here
