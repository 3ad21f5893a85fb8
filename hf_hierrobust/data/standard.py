"""Any dataset with images, in the columns ``image``, ``label``, ``caption`` and ``row``."""

from __future__ import annotations

import datasets as hf
import numpy as np

from .columns import is_text, standard_columns
from .labels import HFDataset, features_of, label_array, stored_labels

PLACE = {"row": hf.Value("int64"), "file": hf.Value("string")}
"""Columns of a stream of `load_images`: the row in the file or shard, and that file's or shard's name."""
_STANDARD = {"image", "label", "caption", *PLACE}


class EmptyDatasetError(ValueError):
    """The source was found but holds no rows."""


def standard_dataset(
    dataset: HFDataset,
    where: str,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    caption_column: str | None = None,
    labelled: bool | None = True,
) -> HFDataset:
    """The dataset with its columns under their standard names, and nothing else.

    Args:
        where: the source, for messages.
        image_column, label_column, caption_column: see `standard_columns`.
        labelled: False looks for no labels, None takes them if there are any.

    Returns:
        ``image`` undecoded; ``label`` a ClassLabel where names are known (text becomes one, its names sorted)
        or numbers, in a stream perhaps text; ``caption``; ``row`` (int64), the position in the source; in
        a stream the columns of `PLACE` where it has them.

    Raises:
        EmptyDatasetError: no rows.
        MissingColumnError: no (single) image or label column, or no such text column of captions.
        LabelRangeError: labels that are no whole numbers, or missing (names the row).
    """
    features = features_of(dataset)
    columns = standard_columns(features, image_column, label_column, caption_column, where, labelled)
    if dataset.features is None:
        dataset = dataset._resolve_features()
    own = set(features) <= _STANDARD or PLACE.items() <= features.items()
    kept = [name for name in PLACE if own and name in features]
    dataset = dataset.select_columns([*columns.values(), *kept])
    for new, old in columns.items():
        if old != new:
            dataset = dataset.rename_column(old, new)
    # undecoded while rows are probed and labels encoded; the cast back costs nothing
    dataset = dataset.cast_column("image", hf.Image(decode=False))
    text = "label" in columns and is_text(features[columns["label"]])
    if isinstance(dataset, hf.IterableDataset):
        return dataset
    if len(dataset) == 0:
        raise EmptyDatasetError(f"{where} has no rows; check the path and the split.")
    if text:
        dataset = _named_labels(dataset, where)
    elif "label" in columns and not _holds_integers(features[columns["label"]]):
        labels = label_array(dataset, where)
        dataset = dataset.remove_columns("label").add_column("label", labels)
    return dataset if "row" in kept else dataset.add_column("row", np.arange(len(dataset)))


def _holds_integers(feature) -> bool:
    return isinstance(feature, hf.ClassLabel) or "int" in feature.dtype


def _named_labels(dataset: hf.Dataset, where: str) -> hf.Dataset:
    """Text becomes a ClassLabel with sorted names."""
    # a new column beside the images: class_encode_column would rewrite every image
    texts = stored_labels(dataset, where).to_numpy(zero_copy_only=False).astype(str)
    names, ids = np.unique(texts, return_inverse=True)
    return dataset.remove_columns("label").add_column(
        "label", ids, feature=hf.ClassLabel(names=names.tolist())
    )
