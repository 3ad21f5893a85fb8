"""Images and class names: loading, batching to pixels in [0, 1], and zero-shot class sets."""

from .class_sets import ClassSet, UnmatchedLabelError, available_class_sets, load_class_set
from .collator import (
    MixedSizesError,
    PixelCollator,
    PixelDataset,
    PixelStream,
    UnreadableImageError,
    decode_image,
)
from .columns import EmptyCaptionError, MissingColumnError
from .datasets import (
    EmptyDatasetError,
    LabelRangeError,
    balanced_subset,
    check_label_range,
    first_n,
    label_array,
    label_names,
    load_images,
    representative_rows,
    shuffled_stream,
    split_holdout,
    validate_labels,
)

__all__ = [
    "ClassSet",
    "EmptyCaptionError",
    "EmptyDatasetError",
    "LabelRangeError",
    "MissingColumnError",
    "MixedSizesError",
    "PixelCollator",
    "PixelDataset",
    "PixelStream",
    "UnmatchedLabelError",
    "UnreadableImageError",
    "available_class_sets",
    "balanced_subset",
    "check_label_range",
    "decode_image",
    "first_n",
    "label_array",
    "label_names",
    "load_class_set",
    "load_images",
    "representative_rows",
    "shuffled_stream",
    "split_holdout",
    "validate_labels",
]
