"""Any data set of images as items whose label is already the class index, found by name.

Each part of a `ConcatDataset` and what lies below a `Subset` (`random_split`) is read by its own label names.
A subclass that reads its items in its own way is read by those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import datasets as hf
import numpy as np
from torch.utils.data import ChainDataset, ConcatDataset, IterableDataset, Subset

from .class_names import class_set_of, is_plain, names_of
from .class_sets import ClassSet
from .columns import MissingColumnError, is_text
from .items import TorchItems
from .labels import check_label_range, features_of
from .pixels import PixelDataset, PixelStream
from .standard import EmptyDatasetError, standard_dataset
from .views import ImageStream, ImageView, check_numbering, joint_numbering, label_places, numbering_of


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
        ItemLabelError: here or on reading, an item of a torch data set with another label than its ``labels``
            or ``targets`` list, as a ``target_transform`` gives it (names the row).
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


def _opened(dataset, columns: Mapping[str, str | None], labelled, name: str, preload: bool):
    """The same nest of data sets with pixel data sets of standard columns at its ends."""
    if isinstance(dataset, (hf.Dataset, hf.IterableDataset)):
        return _of_hub_kind(dataset, columns, labelled, name, preload)
    wrong = {key: value for key, value in columns.items() if value is not None}
    inner = is_plain(dataset, Subset, ConcatDataset, ChainDataset)
    if not inner and (wrong or preload):
        option = next(iter(wrong), "preload")
        raise ValueError(
            f"{option} has no effect on {name}, a {type(dataset).__name__}: set it where that is made, or "
            "give the datasets.Dataset itself."
        )
    if is_plain(dataset, Subset):
        return Subset(_opened(dataset.dataset, columns, labelled, name, preload), list(dataset.indices))
    if is_plain(dataset, ConcatDataset):
        parts = enumerate(dataset.datasets)
        return ConcatDataset([_opened(p, columns, labelled, f"{name}[{i}]", preload) for i, p in parts])
    if is_plain(dataset, ChainDataset):
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
    if getattr(dataset, "format", {}).get("type") == "custom":
        raise ValueError(
            f"{name} has a transform (set_transform, with_transform), which is not applied to images that an "
            "attack perturbs: reset_format() it, or apply it with dataset.map."
        )
    dataset = standard_dataset(dataset, name, **{**columns, "caption_column": caption}, labelled=labelled)
    if isinstance(dataset, hf.IterableDataset):
        if preload:
            raise ValueError(f"preload has no effect on {name}, a stream: leave it out.")
        return PixelStream(dataset, source=name)
    return PixelDataset(dataset, preload=preload, source=name)


def _viewed(dataset, class_set: ClassSet | None, labelled, name: str) -> ImageView | ImageStream:
    done = is_plain(dataset, ImageView, ImageStream) and dataset.class_set == class_set
    if done and (labelled is not False or not dataset.labelled):
        return dataset
    if is_plain(dataset, Subset):
        return _viewed(dataset.dataset, class_set, labelled, name).select(dataset.indices)
    if is_plain(dataset, ConcatDataset):
        return _joined([_viewed(part, class_set, labelled, name) for part in dataset.datasets], name)
    if isinstance(dataset, IterableDataset):
        parts = list(dataset.datasets) if is_plain(dataset, ChainDataset) else [dataset]
        return ImageStream(parts, class_set, labelled=labelled, source=name)
    known = is_plain(dataset, PixelDataset, ImageView)
    items = dataset if known else TorchItems(dataset, name, labelled)
    if len(items) == 0:
        raise EmptyDatasetError(f"{name} has no rows.")
    has_labels = items.labelled and labelled is not False
    names, places, labels = names_of(items), None, np.full(len(items), -1)
    if has_labels:
        places, labels = label_places(names, class_set, name), np.asarray(items.labels)
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
        numbering=getattr(items, "numbering", None) or numbering_of(names, places),
        source=name,
    )


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
        numbering=joint_numbering(part.numbering for part in parts),
        source=name,
    )
