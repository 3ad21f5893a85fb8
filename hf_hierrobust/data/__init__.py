"""Images and class names: loading, batching to pixels in [0, 1], and zero-shot class sets."""

from .class_names import UnnamedLabelsError, class_set_of
from .class_sets import ClassSet, UnmatchedLabelError, available_class_sets, load_class_set
from .collator import PixelCollator
from .columns import EmptyCaptionError, MissingColumnError
from .decoding import UnreadableImageError, decode_image
from .image_paths import ImagePathError
from .images import as_images
from .items import ItemLabelError
from .labels import LabelRangeError, label_array, label_names
from .loading import load_images
from .overlap import SameSourceError, check_sources_differ, shared_images
from .pixels import MixedSizesError, PixelDataset, PixelStream
from .sampling import first_n, holdout, stratified_rows
from .sizes import mixed_sizes, threat_space_for
from .sources import MissingSplitError
from .standard import EmptyDatasetError
from .streams import shuffled_stream
from .views import ImageStream, ImageView, check_numbering

__all__ = [
    "ClassSet",
    "EmptyCaptionError",
    "EmptyDatasetError",
    "ImagePathError",
    "ImageStream",
    "ImageView",
    "ItemLabelError",
    "LabelRangeError",
    "MissingColumnError",
    "MissingSplitError",
    "MixedSizesError",
    "PixelCollator",
    "PixelDataset",
    "PixelStream",
    "SameSourceError",
    "UnmatchedLabelError",
    "UnnamedLabelsError",
    "UnreadableImageError",
    "as_images",
    "available_class_sets",
    "check_numbering",
    "check_sources_differ",
    "class_set_of",
    "decode_image",
    "first_n",
    "holdout",
    "label_array",
    "label_names",
    "load_class_set",
    "load_images",
    "mixed_sizes",
    "shared_images",
    "shuffled_stream",
    "stratified_rows",
    "threat_space_for",
]
