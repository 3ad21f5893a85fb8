"""The trees that ship with the package."""

from __future__ import annotations

import difflib
import json
from importlib import resources

from .checks import TreeError
from .tree import LabelTree

__all__ = ["available_trees"]

FORESTS = {"cifar100-forest": ("cifar100", "cifar100-wordnet", "cifar100-induced")}


def available_trees() -> list[str]:
    """Names that `load_forest` knows: the JSON files in ``trees/`` and the forests made of them."""
    return sorted([*FORESTS, *_files()])


def is_builtin(name: str) -> bool:
    """Whether one of the shipped files has this name."""
    return name in _files()


def builtin_tree(name: str) -> LabelTree:
    """A shipped tree by name."""
    return LabelTree.from_json(json.loads(_files()[name].read_text(encoding="utf-8")))


def unknown_tree(name: str) -> TreeError:
    """The error for a name that is neither a tree nor a file, with the nearest names."""
    known = [*available_trees(), "wordnet", "induced"]
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    return TreeError(
        f"tree={name[:80]!r} is no built-in tree ({', '.join(available_trees())}), not 'wordnet', 'induced' "
        f"or 'generated:<model>', and no file{hint}"
    )


def _files() -> dict[str, object]:
    files = resources.files(__package__).joinpath("trees").iterdir()
    return {file.name[:-5]: file for file in files if file.name.endswith(".json")}
