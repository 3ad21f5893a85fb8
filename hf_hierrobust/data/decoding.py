"""From one stored value to one upright RGB image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import datasets as hf
import numpy as np
import torch
from PIL import Image


class UnreadableImageError(ValueError):
    """An image that cannot be decoded; the message names source and row."""


def decode_image(example: Mapping[str, Any], row: int, source: str = "dataset") -> Image.Image:
    """The ``image`` of one example as an upright RGB image.

    Args:
        example: its ``image`` is a PIL image, encoded bytes, a path, or ``{"bytes", "path"}`` as an undecoded
            `datasets.Image` column gives it.
        row: position in the source, for the message.

    Raises:
        UnreadableImageError: missing, damaged, or more than 8 bits a channel.
    """
    value = example["image"]
    feature = hf.Image()
    try:
        if isinstance(value, (bytes, str)):
            value = feature.encode_example(value)
        return to_rgb(feature.decode_example(value))
    except Exception as error:  # PIL plugins raise whatever the damaged bytes lead to
        path = value.get("path") if isinstance(value, Mapping) else None
        raise UnreadableImageError(
            f"row {row} of {source}{f' ({path})' if path else ''} is not a readable image: "
            f"{type(error).__name__}: {error}. Replace or drop this row."
        ) from error


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
            raise TypeError(f"image tensors must be uint8 (3, H, W), got {image.dtype} {tuple(image.shape)}.")
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
