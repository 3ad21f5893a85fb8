"""The zero-shot suite: data sets that robust CLIP models are compared on, one JSON file each.

A file says where the data set is on the Hub, what its classes are called in prompts, and how it is measured.
Any local copy may stand in for the Hub's: labels go by name, so that its order and its columns may differ.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import datasets as hf
import numpy as np

from ..files import read_json
from ..naming import check_name, check_template
from .class_names import UnnamedLabelsError, names_of
from .class_sets import ClassSet, load_class_set
from .columns import MissingColumnError
from .labels import label_array
from .loading import load_images
from .sources import MissingSplitError

_FOLDER = Path(__file__).parent / "suite"
NAMES_FILE = "classnames.txt"
"""Beside webdataset tars: the name of each label, one a line, as the clip-benchmark data sets have it."""


@dataclass(frozen=True, kw_only=True)
class SuiteSet:
    """One data set of the suite.

    Attributes:
        name, title: for records and for people.
        hub_id, hub_id_known, split: where it is, how far that is confirmed, and what is evaluated.
        image_column, label_column: of the Hub's copy; None finds them.
        num_classes, num_images: of the papers' protocol; the number of classes is checked.
        metric: what is measured of each set; the suite's number is the unweighted mean over sets.
        templates: of the prompts.
        tree: built-in class tree over the classes, or None.
        class_set, class_names: the classes in the Hub's label order: a built-in set, or names. Without
            either they are read from the data's own label names.
        names_from: where they come from, in words.
        display: name of a class to what prompts call it.
        display_rules: regular expressions and what takes their place in every name, in this order.
        aliases: further names of classes by index.
        left_out: labels whose images are not part of the set.
        notes: what a reader of its numbers should know.
    """

    name: str
    title: str
    hub_id: str
    hub_id_known: str
    split: str
    num_classes: int
    num_images: int
    metric: str
    templates: tuple[str, ...]
    names_from: str
    image_column: str | None = None
    label_column: str | None = None
    tree: str | None = None
    class_set: str | None = None
    class_names: tuple[str, ...] | None = None
    display: Mapping[str, str] = field(default_factory=dict, hash=False)
    display_rules: tuple[tuple[str, str], ...] = ()
    aliases: Mapping[str, int] = field(default_factory=dict, hash=False)
    left_out: tuple[str, ...] = ()
    notes: str = ""

    def __post_init__(self) -> None:
        check_name("a suite set's name", self.name, file=True)
        for template in self.templates:
            check_template(f"suite set {self.name!r}: template", template)
        known = None if self.class_set is None else load_class_set(self.class_set).class_names
        known = known or self.class_names
        if known is not None and len(known) != self.num_classes:
            raise ValueError(f"suite set {self.name!r} names {len(known)} of {self.num_classes} classes")
        if strange := [name for name in self.display if known is not None and name not in known]:
            raise ValueError(f"suite set {self.name!r}: display names no class {strange[0]!r}")

    def classes(self, data_names: Sequence[str] | None) -> ClassSet:
        """The classes with the names that prompts use; what the data call them is found as an alias.

        Args:
            data_names: of the data's labels, in their order, without those left out; None if they have none.

        Raises:
            UnnamedLabelsError: neither the set nor the data name the classes.
            ValueError: another number of classes.
        """
        if self.class_set is not None:
            own = load_class_set(self.class_set)
            names, aliases, wnids = own.class_names, dict(own.aliases), own.wnids
        elif self.class_names is not None or data_names is not None:
            names, aliases, wnids = tuple(self.class_names or data_names), {}, None
        else:
            raise UnnamedLabelsError(
                f"{self.name}: the labels are numbers, and this set's names are read from the data: use a "
                f"copy whose label column is a ClassLabel or text, or put {NAMES_FILE}, one name a line, "
                "beside it"
            )
        if len(names) != self.num_classes:
            raise ValueError(
                f"{self.name} has {self.num_classes} classes, the data name {len(names)}: "
                f"{', '.join(map(repr, names[:3]))}, …; is it another data set?"
            )
        shown = tuple(self._shown(name) for name in names)
        aliases |= {name: index for index, name in enumerate(names) if name != shown[index]} | dict(
            self.aliases
        )
        twins = tuple(sorted({name for name in shown if shown.count(name) > 1}))
        return ClassSet(
            name=self.name,
            class_names=shown,
            templates=self.templates,
            aliases=aliases,
            wnids=wnids,
            duplicate_names=twins,
            source=self.names_from,
        )

    def open(self, source: str | os.PathLike | None = None) -> tuple[hf.Dataset, ClassSet, str]:
        """Images with the classes' labels, the classes, and the split they are of.

        Args:
            source: a local copy: parquet, image folder, webdataset tars, whatever `load_images` takes, or
                another id on the Hub; None takes ``hub_id``.

        Raises:
            FileNotFoundError: the source cannot be had; with what to give in its place.
            UnmatchedLabelError: names that fit no class.
            ValueError: see `classes` and `load_images`.
        """
        where = self.hub_id if source is None else os.fspath(source)
        try:
            data, split = self._load(where)
        except FileNotFoundError as error:
            why = str(error).rstrip(".")
            raise FileNotFoundError(f"{self.name}: {why}; or name a local copy: {self.name}=path") from error
        names = names_of(data, name=where)
        if names is None and (file := self._listed_names(where)) is not None:
            names = _checked(file, data, where)
            data = data.cast_column("label", hf.ClassLabel(names=names))
        if names is not None and self.left_out:
            wanted = [index for index, name in enumerate(names) if name not in self.left_out]
            data = data.select(np.flatnonzero(np.isin(label_array(data), wanted)))
            places = {old: new for new, old in enumerate(wanted)}
            names = [names[index] for index in wanted]
            labels = [places[label] for label in label_array(data).tolist()]
            data = data.remove_columns("label").add_column(
                "label", labels, feature=hf.ClassLabel(names=names)
            )
        return data, self.classes(names), split

    def _listed_names(self, where: str) -> list[str] | None:
        """Names of a `NAMES_FILE`, unless they repeat where this set knows them: then positions count."""
        names = _names_file(where)
        known = self.class_set is not None or self.class_names is not None
        repeated = names is not None and len(set(names)) < len(names)
        return None if known and repeated and len(names) == self.num_classes else names

    def _load(self, where: str) -> tuple[hf.Dataset, str]:
        """The split of this set, or of a copy the one that it has in its place."""
        columns = {"image_column": self.image_column, "label_column": self.label_column}
        splits = [self.split, *(s for s in ("test", "validation", "val", "train") if s != self.split)]
        if "+" in self.split and Path(where).expanduser().exists():  # files have one split each
            splits = splits[1:]
        known: list[str] | None = None
        for split in splits:
            if known is not None and split not in known:
                continue
            try:
                return self._with_columns(where, split, columns), split
            except MissingSplitError as error:
                known, missing = error.known, error
        only = known[0] if len(known) == 1 else None
        if only is None:
            raise missing
        return self._with_columns(where, only, columns), only

    def _with_columns(self, where: str, split: str, columns: Mapping[str, str | None]) -> hf.Dataset:
        try:
            return load_images(where, split=split, **columns)
        except MissingColumnError:  # a copy may call its columns otherwise
            if where == self.hub_id or not any(columns.values()):
                raise
            return load_images(where, split=split)

    def _shown(self, name: str) -> str:
        if name in self.display:
            return self.display[name]
        for pattern, text in self.display_rules:
            name = re.sub(pattern, text, name)
        return " ".join(name.split()) or "?"


def available_suite() -> list[str]:
    """Names of the suite's data sets."""
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


def load_suite_set(spec: str | os.PathLike) -> SuiteSet:
    """A data set of the suite by its name, or your own from a JSON file with the fields of `SuiteSet`.

    Raises:
        ValueError: no such name, or a file that describes none.
    """
    path = Path(spec).expanduser()
    if path.suffix != ".json":
        if str(spec) not in available_suite():
            near = difflib.get_close_matches(str(spec), available_suite(), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(available_suite())}"
            raise ValueError(f"sets={str(spec)!r} is no data set of the suite: {hint}")
        path = _FOLDER / f"{spec}.json"
    data = read_json(path)
    known = {f.name for f in fields(SuiteSet)}
    if not isinstance(data, dict) or set(data) - known:
        strange = sorted(set(data) - known) if isinstance(data, dict) else type(data).__name__
        raise ValueError(f"{path}: a suite set has no {strange}; it has {', '.join(sorted(known))}")
    for key in ("templates", "class_names", "left_out"):
        if data.get(key) is not None:
            data[key] = tuple(data[key])
    data["display_rules"] = tuple((pattern, text) for pattern, text in data.get("display_rules", ()))
    try:
        return SuiteSet(**data)
    except TypeError as error:
        raise ValueError(f"{path} is no suite set: {error}") from error


def _names_file(where: str) -> list[str] | None:
    """Names in a `NAMES_FILE` beside local tars, above them, or in the Hub's repository."""
    path = Path(where).expanduser()
    folder = path if path.is_dir() else path.parent
    if path.exists() or re.search(r"[*?\[]", where):
        for place in (folder, folder.parent):
            if (place / NAMES_FILE).is_file():
                return _lines((place / NAMES_FILE).read_text(encoding="utf-8"))
        return None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        file = hf_hub_download(where, NAMES_FILE, repo_type="dataset")
    except EntryNotFoundError:
        return None
    return _lines(Path(file).read_text(encoding="utf-8"))


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _checked(names: Sequence[str], data: hf.Dataset, where: str) -> list[str]:
    """Names of a file fit the labels that it is to name."""
    highest = int(label_array(data).max())
    if highest >= len(names) or len(set(names)) < len(names):
        raise ValueError(
            f"{NAMES_FILE} beside {where} has {len(names)} names, {len(set(names))} of them different, for "
            f"labels up to {highest}: it belongs to other data"
        )
    return list(names)
