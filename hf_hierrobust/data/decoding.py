"""From one stored value to one upright RGB image, within limits and without leaving the data."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import Any

import datasets as hf
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = Image.MAX_IMAGE_PIXELS
"""Pixels of the largest image that is decoded (PIL only warns there); a small file can claim billions."""
MAX_ASPECT = 200
"""Longest side over shortest: resizing the short side to a model's size multiplies the long one likewise."""
ADVICE = "Replace or drop this row."
_ORIENTATION = Image.ExifTags.Base.Orientation
_BUILDERS_WITH_OWN_PATHS = {"imagefolder", "generator"}  # of datasets: their paths come from a folder or code


class UnreadableImageError(ValueError):
    """An image that cannot be decoded; the message names source and row."""


def decode_image(
    example: Mapping[str, Any], where: str, *, follow: bool = False, advice: str = ADVICE
) -> Image.Image:
    """The ``image`` of one example as an upright RGB image.

    Args:
        example: its ``image`` is a PIL image, encoded bytes, a path, or ``{"bytes", "path"}`` as an undecoded
            `datasets.Image` column gives it.
        where: row and source, for the message.
        follow: open the files that paths name; see `follows_paths`. Nothing is ever fetched over a network
            but the files of a data set that is streamed from the Hub.
        advice: what to do about it, for the message.

    Raises:
        UnreadableImageError: missing, damaged, larger than `MAX_PIXELS`, longer than `MAX_ASPECT`, of more
            than 8 bits a channel, or a path that is not to be followed.
    """
    value = example["image"]
    try:
        return to_rgb(_opened(value, follow))
    except Exception as error:  # PIL plugins raise whatever the damaged bytes lead to
        raise _unreadable(value, where, error, advice) from error


def follows_paths(dataset: hf.Dataset | hf.IterableDataset) -> bool:
    """Whether the paths in an image column are the data's own, not what the writer of a file put there.

    True for what `load_images` made of a folder, CSV or JSON, for image folders opened with `datasets`, and
    for data made in Python; False for all that was read from a parquet, CSV, JSON or Arrow file.
    """
    builder = dataset.info.builder_name
    return builder in _BUILDERS_WITH_OWN_PATHS or (
        builder is None and not getattr(dataset, "cache_files", [])
    )


def image_size(example: Mapping[str, Any], where: str, *, follow: bool = False) -> tuple[int, int]:
    """Width and height of the upright image, from the file's header alone.

    Raises:
        UnreadableImageError: see `decode_image`; damage behind the header is not noticed.
    """
    try:
        file = _file_of(example["image"], follow)
        if isinstance(file, Image.Image):
            return file.size
        with Image.open(file) as image:
            check_size(*image.size)
            turned = image.getexif().get(_ORIENTATION, 1) >= 5
            return image.size[::-1] if turned else image.size
    except Exception as error:  # as in decode_image
        raise _unreadable(example["image"], where, error) from error


def _unreadable(value: Any, where: str, error: Exception, advice: str = ADVICE) -> UnreadableImageError:
    path = value.get("path") if isinstance(value, Mapping) else value if isinstance(value, str) else None
    why = str(error)
    if isinstance(error, UnidentifiedImageError):
        why = "no image format that PIL knows"
    elif isinstance(error, Image.DecompressionBombError):  # PIL's own, at twice the limit
        why = f"more pixels than the allowed {MAX_PIXELS:,}"
    place = f"{where} ({path})" if path else where
    return UnreadableImageError(f"{place} is not a readable image: {why}. {advice}")


def _opened(value: Any, follow: bool) -> Image.Image:
    file = _file_of(value, follow)
    if isinstance(file, Image.Image):
        check_size(*file.size)
        return file
    with Image.open(file) as image:
        check_size(*image.size)  # from the header, before anything is decoded
        image.load()
        if image.getexif().get(_ORIENTATION) is None:
            return image
        return ImageOps.exif_transpose(image)


def _file_of(value: Any, follow: bool) -> io.BytesIO | str | Image.Image:
    """What PIL can open, or the image itself."""
    if isinstance(value, (list, tuple)):
        raise ValueError(f"it is a list of {len(value)} images; one image per row is needed")
    if isinstance(value, bytes):
        value = {"bytes": value, "path": None}
    elif isinstance(value, (str, os.PathLike)):
        value = {"bytes": None, "path": os.fspath(value)}
    if value is None:
        raise ValueError("it has neither bytes nor a path")
    if not isinstance(value, Mapping):
        return value if isinstance(value, Image.Image) else _of_array(value)
    data, path = value.get("bytes"), value.get("path")
    if data is not None:
        return io.BytesIO(data)
    if path is None:
        raise ValueError("it has neither bytes nor a path")
    if not follow:
        raise ValueError(
            "its bytes are not in the data, and paths in a file are not followed; open the file with "
            "load_images, which follows those inside its folder"
        )
    if "://" not in path:
        return path
    if not path.startswith("hf://") or hf.config.HF_HUB_OFFLINE:
        raise ValueError("it lies on a network; download it first")
    with hf.utils.file_utils.xopen(path, "rb") as remote:
        return io.BytesIO(remote.read())


def _of_array(value: Any) -> Image.Image:
    array = np.asarray(value)
    if array.dtype != np.uint8 or array.ndim not in (2, 3):
        raise ValueError(f"it is a {type(value).__name__}, neither an image nor bytes nor a path")
    return Image.fromarray(array)


def check_size(width: int, height: int) -> None:
    """Refuse hostile sizes with a ValueError; see `MAX_PIXELS` and `MAX_ASPECT`."""
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width}x{height} pixels are more than the allowed {MAX_PIXELS:,}")
    if max(width, height) > MAX_ASPECT * max(1, min(width, height)):
        raise ValueError(f"{width}x{height} pixels are more than {MAX_ASPECT} times as long as wide")


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in RGB; refuses more than 8 bits a channel with a ValueError."""
    if image.mode.startswith(("I", "F")):
        # PIL would clip them to white without a word
        raise ValueError(
            f"mode {image.mode!r} has more than 8 bits a channel; convert the image to 8 bits first"
        )
    return image if image.mode == "RGB" else image.convert("RGB")


def to_uint8(image: Any) -> torch.Tensor:
    """uint8 tensor (3, H, W) of a PIL image or of such a tensor."""
    if isinstance(image, torch.Tensor):
        if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
            raise TypeError(
                f"image tensors must be uint8 (3, H, W), got {image.dtype} {tuple(image.shape)}: "
                "(255 * x).round().byte() makes 8-bit values of [0, 1], expand(3, -1, -1) colour of grey."
            )
        return image
    if not isinstance(image, Image.Image):
        raise TypeError(f"images must be PIL images or uint8 tensors, got {type(image).__name__}.")
    return torch.from_numpy(np.array(to_rgb(image))).permute(2, 0, 1)


def to_pil(image: Any) -> Image.Image:
    """RGB PIL image of a PIL image or a uint8 tensor (3, H, W)."""
    if isinstance(image, Image.Image):
        return to_rgb(image)
    return Image.fromarray(to_uint8(image).permute(1, 2, 0).contiguous().numpy())


def size_text(image: torch.Tensor) -> str:
    """Width x height of a tensor (3, H, W), for messages."""
    return f"{image.shape[2]}x{image.shape[1]}"
