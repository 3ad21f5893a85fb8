"""Images and class names: loading, batching to pixels in [0, 1], and zero-shot class sets."""

from .class_names import UnnamedLabelsError, class_set_of
from .class_sets import ClassSet, UnmatchedLabelError, available_class_sets, load_class_set
from .collator import PixelCollator
from .columns import EmptyCaptionError, MissingColumnError
from .datasets import (
    balanced_subset,
    first_n,
    load_images,
    shuffled_stream,
    split_holdout,
    stratified_rows,
)
from .decoding import UnreadableImageError, decode_image
from .labels import LabelRangeError, check_label_range, label_array, label_names
from .pixels import MixedSizesError, PixelDataset, PixelStream
from .standard import EmptyDatasetError
from .views import ImageStream, ImageView, as_images, check_numbering

__all__ = [
    "ClassSet",
    "EmptyCaptionError",
    "EmptyDatasetError",
    "ImageStream",
    "ImageView",
    "LabelRangeError",
    "MissingColumnError",
    "MixedSizesError",
    "PixelCollator",
    "PixelDataset",
    "PixelStream",
    "UnmatchedLabelError",
    "UnnamedLabelsError",
    "UnreadableImageError",
    "as_images",
    "available_class_sets",
    "balanced_subset",
    "check_label_range",
    "check_numbering",
    "class_set_of",
    "decode_image",
    "first_n",
    "label_array",
    "label_names",
    "load_class_set",
    "load_images",
    "shuffled_stream",
    "split_holdout",
    "stratified_rows",
]
