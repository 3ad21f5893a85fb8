"""Labels of a dataset: as integers, with their names, inside their range."""

from __future__ import annotations

import numbers
from typing import Any

import datasets as hf
import numpy as np

HFDataset = hf.Dataset | hf.IterableDataset


class LabelRangeError(ValueError):
    """A label is missing, no whole number, or outside 0..K-1."""


def label_names(dataset: HFDataset) -> list[str] | None:
    """Names of the label ids, or None where the dataset does not know them."""
    feature = (dataset.features or {}).get("label")
    return list(feature.names) if isinstance(feature, hf.ClassLabel) and feature.names else None


def label_array(dataset: hf.Dataset, source: str = "dataset") -> np.ndarray:
    """All labels, int64 (N,), without touching the images.

    Raises:
        LabelRangeError: a row without a label, or with one that is no whole number (names the row).
    """
    column = stored_labels(dataset, source)
    values = column.to_numpy(zero_copy_only=False)
    if values.dtype.kind == "f":
        wrong = np.flatnonzero(~np.isfinite(values) | (values != np.round(values)))
        if wrong.size:
            row = int(wrong[0])
            what = "no label" if np.isnan(values[row]) else f"label {values[row]}, which is no whole number"
            raise LabelRangeError(f"row {row} of {source} has {what} ({wrong.size} such rows).")
    return values.astype(np.int64)


def stored_labels(dataset: hf.Dataset, source: str = "dataset"):
    """The arrow array of the column ``label``.

    Raises:
        LabelRangeError: a row without a label (names the row).
    """
    column = dataset.select_columns(["label"]).with_format("arrow")[:]["label"].combine_chunks()
    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
        raise LabelRangeError(
            f"row {row} of {source} has no label ({column.null_count} such rows); drop these rows first."
        )
    return column


def integer_label(label: Any, where: str) -> int:
    """One label as an int: whole numbers of any type, scalar tensors and arrays included.

    Raises:
        LabelRangeError: no label, or one that is no whole number.
    """
    try:
        value = label.item() if hasattr(label, "item") else label
    except (ValueError, RuntimeError):  # several numbers
        value = label
    if isinstance(value, numbers.Real) and float(value).is_integer():
        return int(value)
    if value is None or (isinstance(value, float) and value != value):
        raise LabelRangeError(f"{where} has no label; drop such rows first.")
    raise LabelRangeError(f"{where} has label {label!r}; one whole number per image is needed.")


def check_label_range(
    labels: np.ndarray,
    num_classes: int,
    rows: np.ndarray | None = None,
    source: str = "",
    where: str = "",
) -> None:
    """Raise `LabelRangeError` naming the first row and value of `labels` (N,) outside 0..num_classes-1.

    Args:
        rows: (N,) position of each in ``source``; ``where`` names both in their place.
    """
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if wrong.size:
        row = int(wrong[0] if rows is None else rows[wrong[0]])
        many = f" ({wrong.size} of {labels.size} labels are)" if labels.size > 1 else ""
        raise LabelRangeError(
            f"{where or f'row {row} of {source}'} has label {int(labels[wrong[0]])}, outside the allowed "
            f"range 0..{num_classes - 1}{many}. -1 usually marks an unlabelled split; otherwise choose the "
            "class set of this dataset."
        )


def features_of(dataset: HFDataset) -> hf.Features:
    """The features; of a stream that declares none, those of its first rows."""
    return dataset.features if dataset.features is not None else dataset._resolve_features().features
