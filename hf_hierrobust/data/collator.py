"""From items to a batch: ``pixels`` (B, 3, H, W) in [0, 1], ``labels`` (B,) and, if given, ``captions``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from .decoding import size_text, to_pil, to_uint8
from .labels import LabelRangeError, integer_label
from .pixels import MixedSizesError


class PixelCollator:
    """Collate examples ``{"image", "label"}`` into ``{"pixels", "labels"}``.

    ``pixels`` is float32 (B, 3, H, W) in [0, 1], before any normalisation, which belongs inside the attacked
    function; ``labels`` is int64 (B,), the class indices of `as_images`, -1 for examples without ``label``.
    Examples with a ``caption`` add ``captions``, a list of B texts.

    Args:
        image_processor: of the model (or a processor that holds one); only ``resolution="model"`` uses it.
        resolution: threat space of the attack. ``"native"`` keeps each image's own size (OC-1),
            ``"model"`` applies the processor's own resize and crop with its PIL backend.

    Raises:
        ValueError: unknown `resolution`, or a processor that does not rescale 0..255 to [0, 1].
        TypeError: ``resolution="model"`` without a processor.
        MixedSizesError: on a call, native images of different sizes.
        LabelRangeError: on a call, a label that is no whole number or negative.
    """

    def __init__(
        self,
        image_processor: Any = None,
        resolution: Literal["native", "model"] = "native",
    ):
        if resolution not in ("native", "model"):
            raise ValueError(f"resolution must be 'native' or 'model', got {resolution!r}.")
        self.image_processor, self._can_resize = None, image_processor is not None
        if resolution == "model":
            if image_processor is None:
                raise TypeError("resolution='model' needs the image_processor of the model, got None.")
            self.image_processor = _pil_backend(getattr(image_processor, "image_processor", image_processor))
            factor = getattr(self.image_processor, "rescale_factor", 1 / 255)
            if not math.isclose(factor, 1 / 255, rel_tol=1e-4):
                raise ValueError(
                    f"image_processor.rescale_factor is {factor}, not 1/255: pixels would leave [0, 1]."
                )
        self.resolution = resolution

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor | list[str]]:
        rows = [int(example.get("row", index)) for index, example in enumerate(examples)]
        images = [example["image"] for example in examples]
        pixels = self._native(images, rows) if self.resolution == "native" else self._resized(images)
        batch = {"pixels": pixels, "labels": _labels(examples, rows)}
        if "caption" in examples[0]:
            batch["captions"] = [example["caption"] for example in examples]
        return batch

    def _native(self, images: Sequence[Any], rows: Sequence[int]) -> torch.Tensor:
        tensors = [to_uint8(image) for image in images]
        for row, tensor in zip(rows, tensors):
            if tensor.shape != tensors[0].shape:
                remedy = "resize the images beforehand, or give a processor and the space 'model'"
                if self._can_resize:
                    remedy = (
                        "use threat_space='model' (space='model' of evaluate and suite) or resize the images "
                        "beforehand"
                    )
                raise MixedSizesError(
                    f"a batch at native resolution needs images of one size, but row {rows[0]} is "
                    f"{size_text(tensors[0])} and row {row} is {size_text(tensor)}; {remedy}."
                )
        return torch.stack(tensors).contiguous().to(torch.float32).div_(255)

    def _resized(self, images: Sequence[Any]) -> torch.Tensor:
        images = [to_pil(image) for image in images]
        batch = self.image_processor(images=images, do_rescale=True, do_normalize=False, return_tensors="pt")
        return batch["pixel_values"].to(torch.float32)


def _labels(examples: Sequence[Mapping[str, Any]], rows: Sequence[int]) -> torch.Tensor:
    if "label" not in examples[0]:
        return torch.full((len(examples),), -1)
    labels = [integer_label(example["label"], f"row {row}") for example, row in zip(examples, rows)]
    for label, row in zip(labels, rows):
        if label < 0:  # in a level map it would silently pick the last class
            raise LabelRangeError(
                f"row {row} has label {label}, which is no class; leave labels out instead."
            )
    return torch.tensor(labels, dtype=torch.long)


def _pil_backend(processor: Any) -> Any:
    """The processor's PIL twin where it has one: torchvision resizes differently."""
    import transformers

    name = type(processor).__name__
    twin = getattr(transformers, name.removesuffix("Fast") + "Pil", None)
    if name.endswith("Pil") or twin is None:
        return processor
    return twin.from_dict(processor.to_dict())
