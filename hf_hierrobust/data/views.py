"""Images whose labels are class indices: what `as_images` makes of any data set."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import ConcatDataset, Dataset, IterableDataset

from .class_names import UnnamedLabelsError, names_of
from .class_sets import ClassSet
from .decoding import to_pil
from .labels import check_label_range, integer_label


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
            self._places.append(
                label_places(names, class_set, source) if self.labelled and not text else None
            )
            numberings.append("classes" if text else numbering_of(names, self._places[-1]))
        self.numbering = joint_numbering(numberings)
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


def label_places(names: Sequence[str] | None, class_set: ClassSet | None, name: str) -> np.ndarray | None:
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


def numbering_of(names: Sequence[str] | None, places: np.ndarray | None) -> str:
    if names is None:
        return "unnamed"
    return "classes" if places is None or np.array_equal(places, np.arange(len(places))) else "own"


def joint_numbering(numberings: Iterable[str]) -> str:
    """Of several parts: the one that says least about the others' order."""
    found = set(numberings)
    return next(one for one in ("own", "unnamed", "classes") if one in found)


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


def _size_of(items: Any, place: int) -> tuple[int, int]:
    if isinstance(items, ConcatDataset):
        part = bisect_right(items.cumulative_sizes, place)
        return _size_of(items.datasets[part], place - ([0, *items.cumulative_sizes])[part])
    if hasattr(items, "size_of"):
        return items.size_of(place)
    return to_pil(items[place]["image"]).size
