"""Any data set of images as items whose label is already the class index, found by name.

Each part of a `ConcatDataset` and what lies below a `Subset` (`random_split`) is read by its own label names.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import datasets as hf
import numpy as np
from torch.utils.data import ChainDataset, ConcatDataset, Dataset, IterableDataset, Subset

from .class_names import UnnamedLabelsError, class_set_of, names_of
from .class_sets import ClassSet
from .columns import MissingColumnError, is_text
from .decoding import to_pil
from .labels import check_label_range, features_of, integer_label
from .pixels import PixelDataset, PixelStream
from .standard import EmptyDatasetError, standard_dataset


class ImageView(Dataset):
    """Labelled images in the classes of one class set: what `as_images` makes of a map-style data set.

    Item i is ``{"image", "label", "row"}`` and ``"caption"`` where there are captions: see `PixelDataset`.

    Attributes:
        labels: (N,) int64, class index of each image; -1 where they have none.
        labelled: whether they have.
        captions: N texts, or None.
        class_set: the classes, or None where the labels are plain numbers.
        numbering: how the data themselves number their classes: ``"classes"`` in the order of the class set,
            ``"own"`` in another, ``"unnamed"`` where only the class set has names.
        source: what messages call the data.
    """

    def __init__(
        self,
        items: Dataset,
        labels: np.ndarray,
        *,
        labelled: bool,
        class_set: ClassSet | None,
        captions: Sequence[str] | None = None,
        numbering: str = "unnamed",
        index: np.ndarray | None = None,
        source: str = "dataset",
    ):
        self.items, self.labels, self.labelled, self.class_set = items, labels, labelled, class_set
        self.captions, self.numbering, self.source = captions, numbering, source
        self._index = index

    @property
    def label_names(self) -> list[str] | None:
        return None if self.class_set is None else list(self.class_set.class_names)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = dict(self.items[int(index if self._index is None else self._index[index])])
        item.pop("label", None)
        return item | {"label": int(self.labels[index])} if self.labelled else item

    def size_of(self, index: int) -> tuple[int, int]:
        """Width and height of one image, from its header alone where it is a file."""
        place = int(index if self._index is None else self._index[index])
        return _size_of(self.items, place)

    def select(self, rows: Sequence[int]) -> ImageView:
        """The images at these positions, in this order."""
        index = np.asarray(rows, dtype=np.int64)
        captions = None if self.captions is None else [self.captions[row] for row in index]
        return ImageView(
            self,
            self.labels[index],
            labelled=self.labelled,
            class_set=self.class_set,
            captions=captions,
            numbering=self.numbering,
            index=index,
            source=self.source,
        )


class ImageStream(IterableDataset):
    """Streamed counterpart of `ImageView`, one or several streams after each other.

    Raises:
        LabelRangeError: on reading, a label outside the classes (names the row).
        UnmatchedLabelError, UnnamedLabelsError: on reading, a text label that fits no class, or no class set.
    """

    def __init__(
        self,
        parts: Sequence[IterableDataset],
        class_set: ClassSet | None,
        *,
        labelled: bool | None = True,
        source: str = "stream",
    ):
        self.parts, self.class_set, self.source = tuple(parts), class_set, source
        self.labelled = labelled is not False and all(getattr(p, "labelled", True) for p in self.parts)
        self._places, numberings = [], []
        for part in self.parts:
            text = getattr(part, "text_labels", False)  # found one by one, as they come
            names = names_of(part) if self.labelled else None
            self._places.append(_places(names, class_set, source) if self.labelled and not text else None)
            numberings.append("classes" if text else _numbering(names, self._places[-1]))
        self.numbering = _joint(numberings)
        self._found: dict[str, int] = {}  # class index of each text label met so far

    @property
    def label_names(self) -> list[str] | None:
        return None if self.class_set is None else list(self.class_set.class_names)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for part, places in zip(self.parts, self._places):
            for position, item in enumerate(part):
                item = dict(item)
                label = item.pop("label", None)
                if self.labelled:
                    where = f"row {item.get('row', position)} of {item.get('file', self.source)}"
                    item["label"] = self._class_index(label, places, where)
                yield item

    def set_epoch(self, epoch: int) -> None:
        """Passed on, so that a shuffled stream gives a new order each epoch."""
        for part in self.parts:
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)

    def _class_index(self, label: Any, places: np.ndarray | None, where: str) -> int:
        if isinstance(label, str):
            if self.class_set is None:
                raise UnnamedLabelsError(
                    f"{where} has the text label {label!r}, and a stream cannot know all "
                    "names in advance: give class_set, a ClassLabel column, or streaming=False."
                )
            if label not in self._found:
                self._found[label] = int(self.class_set.index_map([label]))
            return self._found[label]
        label = integer_label(label, where)
        count = len(places) if places is not None else len(self.class_set) if self.class_set else label + 1
        check_label_range(np.array([label]), count, where=where)
        return label if places is None else int(places[label])


def as_images(
    dataset: Any,
    class_set: ClassSet | None = None,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    caption_column: str | None = None,
    labelled: bool | None = True,
    name: str = "dataset",
    preload: bool = False,
) -> ImageView | ImageStream:
    """Any data set of images as items whose ``label`` is the class index in ``class_set``.

    Labels with names (ClassLabel, text, ``label_names``) are found in the class set by name, alias or WordNet
    id. Numbers without names are class indices of a class set that the caller gave; beside one that was read
    off other data's names (`class_set_of`) they are refused: nothing tells that both number classes alike.

    Args:
        dataset: `datasets.Dataset` or `IterableDataset`, `PixelDataset`, `PixelStream`, `Subset`,
            `ConcatDataset` or `ChainDataset` of these, a result of this function, or any torch data set of
            items ``{"image", "label"}`` or pairs (image, label).
        class_set: the classes; None takes the data's own names (`class_set_of`), if there are any.
        image_column, label_column, caption_column: of `datasets` data, where type and usual names do not
            tell. A text column called ``caption`` is taken unasked.
        labelled: True requires labels of `datasets` data, None takes them if there are any, False ignores
            them.
        name: what messages call the data.
        preload: decode all images of `datasets` data once, here (see `PixelDataset`).

    Raises:
        TypeError: something else, a `DatasetDict` or a path.
        UnmatchedLabelError: label names that fit no class.
        UnnamedLabelsError: numbers without names, see above.
        LabelRangeError: a label outside the classes (names the row).
        MissingColumnError, EmptyDatasetError, EmptyCaptionError: see `standard_dataset` and `PixelDataset`.
        ValueError: ``preload`` of anything but `datasets` data.
    """
    columns = {
        "image_column": image_column,
        "label_column": label_column,
        "caption_column": caption_column,
    }
    opened = _opened(dataset, columns, labelled, name, preload)
    if class_set is None and labelled is not False and names_of(opened, name=name) is not None:
        class_set = class_set_of(opened, name=name)
    return _viewed(opened, class_set, labelled, name)


def check_numbering(datasets: Mapping[str, ImageView | ImageStream | None]) -> None:
    """Refuse numbers without names beside names that number the classes in another order than the class set.

    Args:
        datasets: results of `as_images` for one class set, by the name that messages use.

    Raises:
        UnnamedLabelsError: see above.
    """
    present = {name: data for name, data in datasets.items() if data is not None and data.labelled}
    unnamed = [name for name, data in present.items() if data.numbering == "unnamed"]
    own = [name for name, data in present.items() if data.numbering == "own"]
    if unnamed and own:
        raise UnnamedLabelsError(
            f"{unnamed[0]} numbers its labels without names, while {own[0]} numbers its own in another order "
            f"than class set {present[own[0]].class_set.name!r}: nothing tells which of the two is meant. "
            f"Give {unnamed[0]} a ClassLabel column."
        )


def _opened(dataset, columns: Mapping[str, str | None], labelled, name: str, preload: bool):
    """The same nest of data sets with pixel data sets of standard columns at its ends."""
    if isinstance(dataset, (hf.Dataset, hf.IterableDataset)):
        return _of_hub_kind(dataset, columns, labelled, name, preload)
    wrong = {key: value for key, value in columns.items() if value is not None}
    inner = isinstance(dataset, (Subset, ConcatDataset, ChainDataset))
    if not inner and (wrong or preload):
        option = next(iter(wrong), "preload")
        raise ValueError(
            f"{option} has no effect on {name}, a {type(dataset).__name__}: set it where that is made, or "
            "give the datasets.Dataset itself."
        )
    if isinstance(dataset, Subset):
        return Subset(_opened(dataset.dataset, columns, labelled, name, preload), list(dataset.indices))
    if isinstance(dataset, ConcatDataset):
        parts = enumerate(dataset.datasets)
        return ConcatDataset([_opened(p, columns, labelled, f"{name}[{i}]", preload) for i, p in parts])
    if isinstance(dataset, ChainDataset):
        parts = enumerate(dataset.datasets)
        return ChainDataset([_opened(p, columns, labelled, f"{name}[{i}]", preload) for i, p in parts])
    if isinstance(dataset, (hf.DatasetDict, hf.IterableDatasetDict)):
        raise TypeError(f"{name} is a DatasetDict; give one of its splits: {name}[{next(iter(dataset))!r}].")
    if isinstance(dataset, (Mapping, str, bytes)) or not _is_dataset(dataset):
        raise TypeError(
            f"{name} must be a datasets.Dataset or a torch Dataset of images, got {type(dataset).__name__}"
            f"{' (load_images opens paths and Hub ids)' if isinstance(dataset, str) else ''}."
        )
    return dataset


def _is_dataset(dataset) -> bool:
    if isinstance(dataset, IterableDataset):
        return True
    return hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")


def _of_hub_kind(dataset, columns, labelled, name: str, preload: bool) -> PixelDataset | PixelStream:
    features = features_of(dataset)
    caption = columns["caption_column"]
    if caption is None and is_text(features.get("caption")):
        caption = "caption"
    dataset = standard_dataset(dataset, name, **{**columns, "caption_column": caption}, labelled=labelled)
    if isinstance(dataset, hf.IterableDataset):
        if preload:
            raise ValueError(f"preload has no effect on {name}, a stream: leave it out.")
        return PixelStream(dataset, source=name)
    return PixelDataset(dataset, preload=preload, source=name)


def _viewed(dataset, class_set: ClassSet | None, labelled, name: str) -> ImageView | ImageStream:
    done = isinstance(dataset, (ImageView, ImageStream)) and dataset.class_set == class_set
    if done and (labelled is not False or not dataset.labelled):
        return dataset
    if isinstance(dataset, Subset):
        return _viewed(dataset.dataset, class_set, labelled, name).select(dataset.indices)
    if isinstance(dataset, ConcatDataset):
        return _joined([_viewed(part, class_set, labelled, name) for part in dataset.datasets], name)
    if isinstance(dataset, IterableDataset):
        parts = list(dataset.datasets) if isinstance(dataset, ChainDataset) else [dataset]
        return ImageStream(parts, class_set, labelled=labelled, source=name)
    items = dataset if isinstance(dataset, (PixelDataset, ImageView)) else _Items(dataset, name)
    if len(items) == 0:
        raise EmptyDatasetError(f"{name} has no rows.")
    has_labels = items.labelled and labelled is not False
    names, places, labels = names_of(items), None, np.full(len(items), -1)
    if has_labels:
        places, labels = _places(names, class_set, name), np.asarray(items.labels)
        if places is not None or class_set is not None:
            count = len(class_set) if places is None else len(places)
            check_label_range(labels, count, getattr(items, "rows", None), name)
        labels = labels if places is None else places[labels]
    return ImageView(
        items,
        labels.astype(np.int64),
        labelled=has_labels,
        class_set=class_set,
        captions=items.captions,
        numbering=getattr(items, "numbering", None) or _numbering(names, places),
        source=name,
    )


def _places(names: Sequence[str] | None, class_set: ClassSet | None, name: str) -> np.ndarray | None:
    """Class index (C,) of each label; None where labels are class indices already."""
    if class_set is None:
        return None
    if names is not None:
        return class_set.index_map(names).numpy()
    if class_set.inferred:
        raise UnnamedLabelsError(
            f"the labels of {name} are numbers without names, while the classes were read off the names of "
            f"other data ({class_set.name!r}): nothing tells that both number them alike. Give {name} a "
            "ClassLabel column, or give class_set, whose order the numbers then follow."
        )
    return None


def _numbering(names: Sequence[str] | None, places: np.ndarray | None) -> str:
    if names is None:
        return "unnamed"
    return "classes" if places is None or np.array_equal(places, np.arange(len(places))) else "own"


def _joint(numberings: Iterable[str]) -> str:
    """Of several parts: the one that says least about the others' order."""
    found = set(numberings)
    return next(one for one in ("own", "unnamed", "classes") if one in found)


def _joined(parts: Sequence[ImageView], name: str) -> ImageView:
    labelled = {part.labelled for part in parts}
    if len(labelled) > 1:
        raise MissingColumnError(
            f"some parts of {name} have labels and others have none; give all of one kind."
        )
    captions = None
    if any(part.captions is not None for part in parts):
        if any(part.captions is None for part in parts):
            raise MissingColumnError(f"some parts of {name} have captions and others have none.")
        captions = [text for part in parts for text in part.captions]
    if labelled == {True}:
        check_numbering({f"part {index} of {name}": part for index, part in enumerate(parts)})
    return ImageView(
        ConcatDataset(parts),
        np.concatenate([part.labels for part in parts]),
        labelled=labelled == {True},
        class_set=parts[0].class_set,
        captions=captions,
        numbering=_joint(part.numbering for part in parts),
        source=name,
    )


def _size_of(items: Any, place: int) -> tuple[int, int]:
    if isinstance(items, ConcatDataset):
        part = bisect_right(items.cumulative_sizes, place)
        return _size_of(items.datasets[part], place - ([0, *items.cumulative_sizes])[part])
    if hasattr(items, "size_of"):
        return items.size_of(place)
    return to_pil(items[place]["image"]).size


class _Items(Dataset):
    """A torch data set of pairs (image, label) or of items ``{"image", "label"}``, with what a view needs."""

    captions = None

    def __init__(self, dataset: Any, source: str):
        self.dataset, self.source = dataset, source
        self.label_names = names_of(dataset)
        self.labelled = len(dataset) > 0 and "label" in self[0]
        self.labels = np.array(self._read_labels(), dtype=np.int64)

    def _read_labels(self) -> list[int]:
        if not self.labelled:
            return [-1] * len(self)
        for attribute in ("labels", "targets"):  # the second is torchvision's
            found = getattr(self.dataset, attribute, None)
            if found is not None and len(found) == len(self):
                return [
                    integer_label(label, f"row {row} of {self.source}") for row, label in enumerate(found)
                ]
        # nothing but the items knows them: every image is decoded once
        return [integer_label(self[i]["label"], f"row {i} of {self.source}") for i in range(len(self))]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.dataset[index]
        if isinstance(item, (tuple, list)) and len(item) == 2:
            item = {"image": item[0], "label": item[1]}
        if not isinstance(item, Mapping) or "image" not in item:
            raise TypeError(
                f"items of {self.source} must be {{'image', 'label'}} or pairs (image, label), got "
                f"{sorted(item) if isinstance(item, Mapping) else type(item).__name__}."
            )
        return {"row": index, **item}
