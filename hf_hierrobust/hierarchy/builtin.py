"""The trees that ship with the package, and reading trees by name or path."""

from __future__ import annotations

import difflib
import json
from importlib import resources
from pathlib import Path

from .checks import TreeError
from .forest import Forest, as_forest
from .tree import LabelTree

__all__ = ["available_trees", "load_tree"]

FORESTS = {"cifar100-forest": ("cifar100", "cifar100-wordnet", "cifar100-induced")}


def available_trees() -> list[str]:
    """Names that `load_tree` knows: the JSON files in ``trees/`` and the forests made of them."""
    files = resources.files(__package__).joinpath("trees").iterdir()
    return sorted([*FORESTS, *(file.name[:-5] for file in files if file.name.endswith(".json"))])


def load_tree(spec: str | Path | LabelTree | Forest) -> Forest:
    """Forest of a builtin name, a JSON file, or a comma-separated list of these.

    A builtin name wins over a file of that name. The trees of a list get the first one's leaf order.

    Args:
        spec: the name, path or list; a tree or forest comes back as a forest.

    Raises:
        TreeError: neither a builtin tree nor a file (the message lists the builtin ones), an invalid file, or
            trees over different classes.
    """
    if isinstance(spec, (LabelTree, Forest)):
        return as_forest(spec)
    parts = [part.strip() for part in str(spec).split(",")]
    names = [name for part in parts for name in FORESTS.get(part, (part,))]
    if len(set(names)) < len(names):
        raise TreeError(f"{spec!r} names a tree twice: {names}")
    trees = [_load_one(name) for name in names]
    leaves = trees[0].leaves
    return Forest(tuple(tree.align(leaves) if set(tree.leaves) == set(leaves) else tree for tree in trees))


def _load_one(name: str) -> LabelTree:
    builtin = available_trees()
    if name in builtin:
        text = resources.files(__package__).joinpath("trees", f"{name}.json").read_text(encoding="utf-8")
        return LabelTree.from_json(json.loads(text))
    if Path(name).is_file():
        return LabelTree.from_json(name)
    near = difflib.get_close_matches(name, builtin, n=3)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise TreeError(f"{name!r} is no builtin tree ({', '.join(builtin)}) and no file{hint}")
