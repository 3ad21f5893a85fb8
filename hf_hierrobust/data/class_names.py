"""The class set that a dataset's own label names make: WordNet ids become words, odd names a warning."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import datasets as hf
from torch.utils.data import ChainDataset, ConcatDataset, Subset

from ..hierarchy.checks import normalise
from ..naming import public_name
from .class_sets import ClassSet, available_class_sets, load_class_set
from .columns import MissingColumnError, is_text, label_column_name
from .labels import features_of

_WNID = re.compile(r"^(n\d{8})(?:[\s_.-]+(\S.*))?$")


class UnnamedLabelsError(ValueError):
    """Labels are numbers without names where only names can tell what they mean."""


def class_set_of(dataset: Any, *, name: str = "dataset", label_column: str | None = None) -> ClassSet:
    """The classes that a dataset names: ClassLabel names, text labels in sorted order, ``label_names``.

    Of a `ConcatDataset` the names of all parts, those that differ only in capitals, ``_`` and ``-`` once.
    WordNet ids (``n01443537``, ``n02085620-Chihuahua``) become the names of the built-in class sets, or what
    follows the id, and stay known as ``wnids``. Names that no text encoder can know (unknown ids, plain
    numbers) are warned about.

    Args:
        dataset: what `as_images` takes.
        name: of the class set, and of the data in messages.
        label_column: of `datasets` data, where type and usual names do not tell.

    Raises:
        UnnamedLabelsError: the labels have no names.
        ValueError: see `ClassSet`.
    """
    names = names_of(dataset, name=name, label_column=label_column)
    if names is None:
        raise UnnamedLabelsError(
            f"the labels of {name} have no names: give class_set (a built-in name, a JSON file or a "
            "ClassSet), or a ClassLabel or text column."
        )
    words, wnids = _words(names, name)
    aliases = {old: index for index, (old, new) in enumerate(zip(names, words)) if old != new}
    twins = sorted({word for word in words if words.count(word) > 1}) if wnids else ()
    found = ClassSet.from_names(
        words, name=public_name(name), aliases=aliases, wnids=wnids, duplicate_names=twins
    )
    return replace(found, inferred=True)


def names_of(dataset: Any, *, name: str = "dataset", label_column: str | None = None) -> list[str] | None:
    """Names of the labels in the data's own order; None where they have none, or there are no labels.

    Raises:
        UnnamedLabelsError: some parts of a `ConcatDataset` name their labels and others do not.
        ValueError: names in another order than the ``class_to_idx`` beside them.
    """
    if isinstance(dataset, (hf.Dataset, hf.IterableDataset)):
        return _feature_names(dataset, name, label_column)
    if is_plain(dataset, Subset):
        return names_of(dataset.dataset, name=name, label_column=label_column)
    if is_plain(dataset, ConcatDataset, ChainDataset):
        parts = list(dataset.datasets)
        found = [names_of(part, name=name, label_column=label_column) for part in parts]
        if all(names is None for names in found):
            return None
        for index, names in enumerate(found):
            if names is None and getattr(parts[index], "labelled", True):
                raise UnnamedLabelsError(
                    f"part {index} of {name} numbers its labels without names beside parts with names: give "
                    "it a ClassLabel column, or give class_set."
                )
        return _union(names for names in found if names is not None)
    for attribute in ("label_names", "class_names", "classes"):  # the last is torchvision's
        names = getattr(dataset, attribute, None)
        if names is not None:
            _check_numbers(names, getattr(dataset, "class_to_idx", None), f"{attribute} of {name}")
            return list(names)
    return None


def is_plain(dataset: Any, *kinds: type) -> bool:
    """Whether this is one of these kinds of data sets and reads its items as they do.

    A subclass with its own ``__getitem__`` or ``__iter__`` may change images and labels: it is a data set of
    its own, to be read by its items.
    """
    return any(
        isinstance(dataset, kind)
        and all(
            getattr(type(dataset), read, None) is getattr(kind, read, None)
            for read in ("__getitem__", "__iter__")
        )
        for kind in kinds
    )


def _check_numbers(names: Sequence[str], numbers: Any, where: str) -> None:
    """Refuse names in another order than torchvision's ``class_to_idx``, by which its labels count."""
    known = numbers if isinstance(numbers, Mapping) else {}
    for place, name in enumerate(names):
        if isinstance(name, str) and known.get(name, place) != place:
            raise ValueError(
                f"{where} has {name!r} at place {place}, but its class_to_idx numbers it {known[name]}: sort "
                "the names by class_to_idx."
            )


def _feature_names(dataset, name: str, label_column: str | None) -> list[str] | None:
    features = features_of(dataset)
    try:
        column = label_column_name(features, label_column, name)
    except MissingColumnError:
        if label_column is not None:
            raise
        return None
    feature = features[column]
    if isinstance(feature, hf.ClassLabel):
        return list(feature.names) if feature.names else None
    if is_text(feature) and isinstance(dataset, hf.Dataset):
        return sorted(text for text in dataset.unique(column) if text is not None)
    return None


def _union(parts: Iterable[Sequence[str]]) -> list[str]:
    names: list[str] = []
    for part in parts:
        known = {normalise(text) for text in names}
        names += [text for text in part if normalise(text) not in known]
    return names


@cache
def _known_ids() -> dict[str, str]:
    """Built-in class name of each WordNet id; the larger set's name where several have one."""
    sets = sorted((load_class_set(name) for name in available_class_sets()), key=len)
    return {wnid: word for one in sets for wnid, word in zip(one.wnids or (), one.class_names)}


def _words(names: Sequence[str], where: str) -> tuple[list[str], tuple[str, ...] | None]:
    """Class names fit for prompts, and their WordNet ids if all are such."""
    matches = [_WNID.match(str(name)) for name in names]
    words = [
        str(name) if found is None else _known_ids().get(found[1]) or found[2] or found[1]
        for name, found in zip(names, matches)
    ]
    unknown = [word for word, found in zip(words, matches) if found is not None and word == found[1]]
    if unknown:
        warnings.warn(
            f"{len(unknown)} of {len(names)} classes of {where} are WordNet ids without a known name, e.g. "
            f"{unknown[:3]}: their prompts would be 'a photo of a {unknown[0]}'. Give class_set with names "
            "and wnids.",
            stacklevel=3,
        )
    wordless = [word for word in words if not any(letter.isalpha() for letter in word)]
    if wordless:
        warnings.warn(
            f"{len(wordless)} of {len(names)} classes of {where} are named by numbers or signs, e.g. "
            f"{wordless[:3]}, which say nothing to a text encoder unless they are digits. Give class_set.",
            stacklevel=3,
        )
    wnids = tuple(found[1] for found in matches if found is not None)
    return words, wnids if len(wnids) == len(names) and len(names) else None
