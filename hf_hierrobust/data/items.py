"""Torch data sets of pairs or mappings, whose own items say what their labels are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from .class_names import names_of
from .labels import integer_label
from .pixels import PixelDataset
from .views import ImageView

COMPARED = 16
"""Items, spread over the set, whose labels are held against its list of labels before anything is trained."""


class ItemLabelError(ValueError):
    """An item gives another label than the data set lists, or names, for it."""


class TorchItems(Dataset):
    """A torch data set of pairs (image, label) or of items ``{"image", "label"}``, with what a view needs.

    The labels are read off ``labels`` or ``targets`` where it has them, since an item costs a decoded image.
    Every item that is read is held against them, some of them here.

    Args:
        labelled: False ignores labels.

    Raises:
        ItemLabelError: here or on reading, an item's label is not the listed one (names the row); or a
            ``target_transform`` beside ``classes`` and without a list.
        LabelRangeError: a label that is no whole number (names the row).
        TypeError: on reading, other items.
    """

    def __init__(self, dataset: Any, source: str, labelled: bool | None = True):
        self.dataset, self.source = dataset, source
        own = isinstance(dataset, (ImageView, PixelDataset))
        self.captions = dataset.captions if own else None
        self.numbering = getattr(dataset, "numbering", None) if own else None
        self.label_names, self._list = names_of(dataset, name=source), None
        self.labelled = labelled is not False and len(dataset) > 0 and "label" in self[0]
        if not self.labelled:
            self.labels = np.full(len(dataset), -1)
            return
        self._list, found = self._listed()
        if self._list is None:
            self._refuse_hidden_relabelling()
            # Nothing but the items knows them: every image is decoded once.
            found = [self[row]["label"] for row in range(len(self))]
        self.labels = np.array([integer_label(y, self._place(row)) for row, y in enumerate(found)])
        self._list = self._list or "items, when they were first read,"
        for row in np.linspace(0, len(self) - 1, min(COMPARED, len(self))).astype(int):
            self[int(row)]

    def _listed(self) -> tuple[str | None, Any]:
        for attribute in ("labels", "targets"):  # the second is torchvision's
            found = getattr(self.dataset, attribute, None)
            if hasattr(found, "__len__") and len(found) == len(self):
                return attribute, found
        return None, None

    def _refuse_hidden_relabelling(self) -> None:
        if self.label_names is not None and getattr(self.dataset, "target_transform", None) is not None:
            raise ItemLabelError(
                f"{self.source} has a target_transform: nothing tells whether its class names are those of "
                "the labels before or after it. Leave the target_transform out, or give a Dataset whose "
                "items and label_names are the changed ones."
            )

    def _place(self, row: int) -> str:
        return f"row {row} of {self.source}"

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
        if self._list is not None:
            self._compare(index, item.get("label"))
        return {"row": index, **item}

    def _compare(self, row: int, label: Any) -> None:
        found = integer_label(label, self._place(row))
        if found != self.labels[row]:
            raise ItemLabelError(
                f"{self._place(row)} gives the label {found}, but its {self._list} say {self.labels[row]}: "
                "a target_transform, or a __getitem__ that relabels, leaves it open which of the two "
                "and which class names are meant. Change the list itself, or give a Dataset without one."
            )
