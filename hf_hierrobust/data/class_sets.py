"""Class sets: the names and templates that turn a label into zero-shot prompts, one JSON file per set."""

from __future__ import annotations

import difflib
import hashlib
import json
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..files import read_json
from ..hierarchy.checks import normalise
from ..naming import check_name, check_template, check_text

DEFAULT_TEMPLATE = "This is a photo of a {}."
_BUILTIN_FOLDER = Path(__file__).parent / "class_sets"
_JSON_KEYS = (
    "name",
    "class_names",
    "templates",
    "aliases",
    "source",
    "licence",
    "wnids",
    "duplicate_names",
    "notes",
)


class UnmatchedLabelError(ValueError):
    """A dataset's label names do not lead to exactly one class each."""


@dataclass(frozen=True)
class ClassSet:
    """Names of the K classes in label order, with the templates that make prompts of them.

    ``aliases`` maps another name of a class (a folder name, a WordNet lemma) to its index, or to several
    indices where data sets use one word for several classes (`index_map` then looks at the position).
    ``duplicate_names`` declares names that occur more than once on purpose; any other repetition is an error,
    since two classes with the same prompt cannot be told apart. ``inferred`` marks names that were read off a
    dataset (`class_set_of`): numbers without names in other data then mean nothing.

    Raises:
        ValueError: no classes, an empty or undeclared repeated name, a template without exactly one ``{}``,
            an alias outside 0..K-1, or a number of WordNet ids other than K.
    """

    name: str
    class_names: tuple[str, ...]
    templates: tuple[str, ...] = (DEFAULT_TEMPLATE,)
    aliases: Mapping[str, int | tuple[int, ...]] = field(default_factory=dict, hash=False)
    source: str = ""
    licence: str = ""
    wnids: tuple[str, ...] | None = None
    duplicate_names: tuple[str, ...] = ()
    notes: str = ""
    inferred: bool = field(default=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_name("a class set's name", self.name)
        where = f"class set {self.name!r}"
        if not self.class_names:
            raise ValueError(f"{where} has no class_names; give at least one.")
        for index, name in enumerate(self.class_names):
            if not isinstance(name, str) or not name.strip():
                raise ValueError(
                    f"{where}: class_names[{index}] is {name!r}; every class needs a non-empty string."
                )
            check_name(f"{where}: class_names[{index}]", name)
        for title in ("source", "licence", "notes"):
            check_text(f"{where}: {title}", getattr(self, title))
        repeated = {
            name: indices for name, indices in self.duplicates.items() if name not in self.duplicate_names
        }
        if repeated:
            raise ValueError(
                f"{where} repeats class names {repeated}: their prompts would be equal. Rename them, or list "
                "them in duplicate_names if this is intended."
            )
        if not self.templates:
            raise ValueError(f"{where} has no templates; the usual one is {DEFAULT_TEMPLATE!r}.")
        for template in self.templates:
            check_template(f"{where}: template", template)
        for alias, target in self.aliases.items():
            check_name(f"{where}: alias", alias)
            if any(not 0 <= index < len(self) for index in _indices(target)):
                raise ValueError(f"{where}: alias {alias!r} points to {target}, outside 0..{len(self) - 1}.")
        if self.wnids is not None and len(self.wnids) != len(self):
            raise ValueError(
                f"{where} has {len(self.wnids)} wnids for {len(self)} classes; give one per class."
            )

    def __len__(self) -> int:
        return len(self.class_names)

    @classmethod
    def from_names(cls, names: Iterable[str], *, name: str = "custom", **fields: Any) -> ClassSet:
        """A class set of your own: names in label order, other fields by keyword.

        Underscores become blanks in the prompts; the name as given stays known as an alias.
        """
        given = (names,) if isinstance(names, str) else tuple(names)
        for index, text in enumerate(given):
            if not isinstance(text, str):
                raise ValueError(
                    f"class set {name!r}: names[{index}] is {text!r} of type {type(text).__name__}; "
                    "class names are strings, since they make the prompts."
                )
        prompt_names = tuple(" ".join(text.replace("_", " ").split()) for text in given)
        aliases = {old: index for index, (old, new) in enumerate(zip(given, prompt_names)) if old != new}
        return _build(
            {
                "name": name,
                **fields,
                "class_names": prompt_names,
                "aliases": {**aliases, **fields.get("aliases", {})},
            }
        )

    @property
    def duplicates(self) -> dict[str, tuple[int, ...]]:
        """Class names that occur more than once, with their indices."""
        places: dict[str, list[int]] = defaultdict(list)
        for index, name in enumerate(self.class_names):
            places[name].append(index)
        return {name: tuple(indices) for name, indices in places.items() if len(indices) > 1}

    @property
    def templates_hash(self) -> str:
        """First 16 hex digits of the SHA-256 of the templates in order; part of every evaluation record."""
        return hashlib.sha256(json.dumps(list(self.templates)).encode()).hexdigest()[:16]

    def prompts(self, names: Sequence[str] | None = None) -> list[list[str]]:
        """Prompts ``[K][T]``: for each of the `names` (default: the class names) one text per template.

        Pass the names of superclasses to prompt the inner nodes of a tree with the same templates.
        """
        # replace, not format: a template may hold other braces
        return [
            [template.replace("{}", name) for template in self.templates]
            for name in (self.class_names if names is None else names)
        ]

    def index_map(self, dataset_label_names: Sequence[str]) -> torch.Tensor:
        """Class index for each label id of a dataset: LongTensor (C,), ``labels = index_map[labels]``.

        A label is looked up as a class name, alias or WordNet id, as written or else normalised, then by the
        synonyms of a comma list (``"tench, Tinca tinca"``). Where a name still fits several classes, those
        that other labels name are left out; then, if all other labels stand in the order of this set, the
        class at the label's own position is meant. Two labels of one class are merged, with a warning.

        Raises:
            UnmatchedLabelError: labels that fit no class (with the nearest names) or several.
        """
        exact, normalised = self._lookup_tables()
        fits = [_candidates(label, exact, normalised) for label in dataset_label_names]
        fits = self._decided(fits)
        unmatched = [label for label, found in zip(dataset_label_names, fits) if not found]
        ambiguous = [
            f"{label!r} fits classes {sorted(found)}"
            for label, found in zip(dataset_label_names, fits)
            if len(found) > 1
        ]
        if unmatched or ambiguous:
            raise UnmatchedLabelError(
                self._mismatch(unmatched, ambiguous, len(dataset_label_names), list(normalised))
            )
        mapped = [next(iter(found)) for found in fits]
        times = Counter(mapped)
        if twins := [label for label, index in zip(dataset_label_names, mapped) if times[index] > 1]:
            warnings.warn(
                f"{len(twins)} labels share their class of {self.name!r} with another label and are merged "
                f"with it: {twins[:6]}.",
                stacklevel=3,
            )
        return torch.tensor(mapped, dtype=torch.long)

    def _decided(self, fits: list[set[int]]) -> list[set[int]]:
        """Candidates of each label, fewer where the other labels or the common order leave one."""
        while True:
            taken = {index for found in fits if len(found) == 1 for index in found}
            left = [found - taken if len(found) > 1 and found - taken else found for found in fits]
            if left == fits:
                break
            fits = left
        in_order = len(fits) == len(self) and all(
            len(found) != 1 or found == {position} for position, found in enumerate(fits)
        )
        if not in_order:
            return fits
        return [{position} if position in found else found for position, found in enumerate(fits)]

    def _lookup_tables(self) -> tuple[dict[str, set[int]], dict[str, set[int]]]:
        exact: dict[str, set[int]] = defaultdict(set)
        for index, name in enumerate(self.class_names):
            exact[name].add(index)
        for index, wnid in enumerate(self.wnids or ()):
            exact[wnid].add(index)
        for alias, target in self.aliases.items():
            exact[alias].update(_indices(target))
        normalised: dict[str, set[int]] = defaultdict(set)
        for name, indices in exact.items():
            normalised[normalise(name)] |= indices
        return dict(exact), dict(normalised)

    def _mismatch(self, unmatched: list[str], ambiguous: list[str], total: int, known: list[str]) -> str:
        wrong = [f"{label!r} is unknown, nearest: {_nearest(label, known)}" for label in unmatched[:5]]
        if len(unmatched) > 5:
            wrong.append(f"{len(unmatched) - 5} more are unknown, {', '.join(map(repr, unmatched[5:15]))}")
        count, what = len(unmatched) + len(ambiguous), "; ".join([*wrong, *ambiguous[:5]])
        return (
            f"{count} of {total} dataset labels do not fit class set {self.name!r}: {what}. Add the missing "
            "names to the set's aliases, choose another class set, or make one of the data's own names with "
            "class_set_of(dataset); for ambiguous names pass WordNet ids."
        )


def available_class_sets() -> list[str]:
    """Names that `load_class_set` knows without a path."""
    return sorted(path.stem for path in _BUILTIN_FOLDER.glob("*.json"))


def load_class_set(spec: str | Path | ClassSet) -> ClassSet:
    """A built-in class set by name, or your own from the path of a JSON file with the fields of `ClassSet`.

    Raises:
        ValueError: the name is not built in, or the file's content is not a class set.
        FileNotFoundError: `spec` is a path to a file that does not exist.
    """
    if isinstance(spec, ClassSet):
        return spec
    path = Path(spec).expanduser()
    if path.suffix != ".json":
        if str(spec) not in available_class_sets():
            raise ValueError(
                f"class set {str(spec)!r} is not built in; choose one of {available_class_sets()} or give "
                "the path of a .json file."
            )
        path = _BUILTIN_FOLDER / f"{spec}.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"class set file {str(path)!r} does not exist; built in are {available_class_sets()}."
        )
    data = read_json(path)
    if not isinstance(data, dict) or "class_names" not in data:
        raise ValueError(f"class set file {str(path)!r} must hold an object with the key 'class_names'.")
    return _build({"name": path.stem, **data})


def _build(data: Mapping[str, Any]) -> ClassSet:
    unknown = sorted(set(data) - set(_JSON_KEYS))
    if unknown:
        raise ValueError(
            f"class set {data['name']!r} has unknown keys {unknown}; known are {list(_JSON_KEYS)}."
        )
    values = dict(data)
    for key in ("class_names", "templates", "wnids", "duplicate_names"):
        if values.get(key) is not None:
            # a lone string would otherwise become a tuple of letters
            values[key] = (values[key],) if isinstance(values[key], str) else tuple(values[key])
    values["aliases"] = {
        alias: tuple(target) if isinstance(target, (list, tuple)) else target
        for alias, target in values.get("aliases", {}).items()
    }
    return ClassSet(**values)


def _nearest(label: str, known: list[str]) -> str:
    found = difflib.get_close_matches(normalise(label), known, n=3)
    return ", ".join(map(repr, found)) or "none"


def _candidates(label: str, exact: Mapping[str, set[int]], normalised: Mapping[str, set[int]]) -> set[int]:
    """Classes that a label may mean: by its whole text, narrowed down by the synonyms of a comma list."""
    found: set[int] = set()
    for text in (label, *map(str.strip, label.split(","))):
        hit = exact.get(text) or normalised.get(normalise(text)) or set()
        found = (found & hit) or found or hit
    return found


def _indices(target: int | tuple[int, ...]) -> tuple[int, ...]:
    return target if isinstance(target, tuple) else (target,)
