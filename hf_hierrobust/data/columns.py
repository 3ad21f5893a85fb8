"""Which column of a dataset holds the images, which the labels and which the captions."""

from __future__ import annotations

import datasets as hf

IMAGE_COLUMNS = (
    *("image", "img", "images", "photo", "pixels", "pixel_values", "jpg", "jpeg", "png", "webp"),
    *("file_name", "filename", "image_path", "filepath", "file_path", "path", "file"),
)
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "cls", "target", "category", "class_name")


class MissingColumnError(ValueError):
    """No column, or no single column, can serve as the images or the labels."""


class EmptyCaptionError(ValueError):
    """An image without a caption, or with a blank one; the message names source and row."""


def standard_columns(
    features: hf.Features,
    image: str | None,
    label: str | None,
    caption: str | None,
    where: str,
    labelled: bool | None = True,
) -> dict[str, str]:
    """Column of ``image``, of ``label`` if the images are labelled, and of ``caption`` if one is requested.

    Args:
        image, label, caption: requested names, or None.
        where: the source, for messages.
        labelled: None takes labels if there are any.

    Raises:
        MissingColumnError: no (single) column can serve, or one would have to serve twice.
    """
    columns = {"image": image_column_name(features, image, where)}
    if labelled is None:
        labelled = label is not None or has_labels(features)
    if labelled:
        columns["label"] = label_column_name(features, label, where)
    if caption is not None:
        if caption in columns.values():
            raise MissingColumnError(f"caption_column={caption!r} of {where} is its image or label column.")
        columns["caption"] = caption_column_name(features, caption, where)
    return columns


def image_column_name(features: hf.Features, requested: str | None, where: str) -> str:
    """The column of images: `requested`, the only one of type Image, or the one with a usual name."""
    for name in (requested,) if requested in features else IMAGE_COLUMNS:
        if name in features and _is_list_of_images(features[name]):
            raise MissingColumnError(
                f"column {name!r} of {where} holds a list of images per row; one image per row is needed: "
                "choose one, or give each its own row, with dataset.map."
            )
    if requested is not None:
        return _requested(features, requested, "image_column", where)
    typed = [name for name, feature in features.items() if isinstance(feature, hf.Image)]
    if len(typed) == 1:
        return typed[0]
    candidates = typed or [name for name, feature in features.items() if _may_hold_images(feature)]
    named = [name for name in IMAGE_COLUMNS if name in candidates]
    if not named:
        raise MissingColumnError(_no_column("image", "image_column", features, where))
    return named[0]


def label_column_name(features: hf.Features, requested: str | None, where: str) -> str:
    """The column of labels: `requested`, a usual name, or the only ClassLabel."""
    if requested is not None:
        name = _requested(features, requested, "label_column", where)
        if not _may_hold_labels(features[name]):
            raise MissingColumnError(
                f"label_column={name!r} of {where} has type {features[name]}; "
                "one integer or text per image is needed."
            )
        return name
    typed = [name for name, feature in features.items() if isinstance(feature, hf.ClassLabel)]
    others = [name for name, feature in features.items() if name not in typed and _may_hold_labels(feature)]
    integers = [name for name in others if not is_text(features[name])]
    for candidates in (typed, integers):
        named = [name for name in LABEL_COLUMNS if name in candidates]
        if named:
            return named[0]
    named = [name for name in LABEL_COLUMNS if name in others]
    if len(typed) == 1 or (named and not typed):
        return (typed or named)[0]
    wanted = "label_column (or unlabelled, for objectives that use no labels)"
    raise MissingColumnError(_no_column("label", wanted, features, where))


def has_labels(features: hf.Features) -> bool:
    """Whether one column is clearly the label."""
    try:
        return bool(label_column_name(features, None, ""))
    except MissingColumnError:
        return False


def caption_column_name(features: hf.Features, requested: str, where: str) -> str:
    """The column of captions, always requested: which of several texts describes the image, no name tells."""
    name = _requested(features, requested, "caption_column", where)
    if not is_text(features[name]):
        raise MissingColumnError(
            f"caption_column={name!r} of {where} has type {features[name]}; one text per image is needed. "
            "Choose one of several texts with dataset.map first."
        )
    return name


def checked_caption(caption: object, where: str) -> str:
    """The caption of one row, stripped; ``where`` names row and source.

    Raises:
        EmptyCaptionError: no text, or a blank one.
    """
    if not isinstance(caption, str) or not caption.strip():
        raise EmptyCaptionError(
            f"{where} has no caption but {caption!r}; drop such rows, or leave out all "
            "captions: then every image is given its class prompt."
        )
    return caption.strip()


def _requested(features: hf.Features, name: str, option: str, where: str) -> str:
    if name not in features:
        raise MissingColumnError(
            f"{option}={name!r} is not a column of {where}; its columns are {list(features)}."
        )
    return name


def _no_column(kind: str, option: str, features: hf.Features, where: str) -> str:
    columns = ", ".join(
        f"{name} ({getattr(feature, 'dtype', type(feature).__name__)})" for name, feature in features.items()
    )
    return f"{where} has no column that is clearly the {kind}; its columns are {columns}. Set {option}."


def is_text(feature) -> bool:
    """Whether a feature holds one string per row."""
    return isinstance(feature, hf.Value) and feature.dtype in ("string", "large_string")


def _may_hold_images(feature) -> bool:
    if isinstance(feature, dict):  # pandas writes {"bytes", "path"} without declaring an image
        return bool({"bytes", "path"} & set(feature))
    return is_text(feature) or (isinstance(feature, hf.Value) and "binary" in feature.dtype)


def _is_list_of_images(feature) -> bool:
    inner = getattr(feature, "feature", None)
    return inner is not None and (isinstance(inner, hf.Image) or _may_hold_images(inner))


def _may_hold_labels(feature) -> bool:
    if isinstance(feature, hf.ClassLabel) or is_text(feature):
        return True
    return isinstance(feature, hf.Value) and feature.dtype.startswith(("int", "uint", "float", "bool"))
