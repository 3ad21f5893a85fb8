"""From dataset rows to ``pixels`` (B, 3, H, W) in [0, 1], ``labels`` (B,) and, if there are any, captions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import datasets as hf
import numpy as np
import torch
from PIL import Image

from .columns import checked_caption
from .datasets import EmptyDatasetError, LabelRangeError, check_label_range, label_array, label_names


class UnreadableImageError(ValueError):
    """An image that cannot be decoded; the message names source and row."""


class MixedSizesError(ValueError):
    """Images of different sizes where one tensor has to hold them all."""


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
        return _to_rgb(feature.decode_example(value))
    except Exception as error:  # PIL plugins raise whatever the damaged bytes lead to
        path = value.get("path") if isinstance(value, Mapping) else None
        raise UnreadableImageError(
            f"row {row} of {source}{f' ({path})' if path else ''} is not a readable image: "
            f"{type(error).__name__}: {error}. Replace or drop this row."
        ) from error


class PixelDataset(torch.utils.data.Dataset):
    """Map-style view of a dataset of `load_images`: item i is ``{"image", "label", "row"}``.

    A dataset with a text column ``caption`` adds ``"caption"``, a string. One without a column ``label`` has
    items without; ``labelled`` is then False and ``labels`` are all -1.

    ``image`` is an RGB PIL image, or with `preload` a uint8 tensor (3, H, W): every image is then decoded
    once, here, instead of once an epoch (N*3*H*W bytes of memory). ``row`` is the row in the source where the
    dataset kept it, else i. ``label_names`` are those of the dataset's ids, or None.

    Raises:
        TypeError: a stream (use `PixelStream`).
        ValueError: no column ``image``.
        EmptyDatasetError: no rows.
        UnreadableImageError: on access or preload, naming the row.
        EmptyCaptionError: a row without one, where there are captions, naming the row.
        MixedSizesError: `preload` with images of different sizes.
    """

    def __init__(self, dataset: hf.Dataset, *, preload: bool = False, source: str = "dataset"):
        if isinstance(dataset, hf.IterableDataset):
            raise TypeError(
                "PixelDataset needs random access; wrap a streamed dataset in PixelStream instead."
            )
        _require_images(dataset)
        if len(dataset) == 0:
            raise EmptyDatasetError(f"{source} has no rows.")
        self.source = source
        self.labelled, self.label_names = "label" in dataset.column_names, label_names(dataset)
        self.labels = label_array(dataset) if self.labelled else np.full(len(dataset), -1)
        has_rows = "row" in dataset.column_names
        self.rows = (
            np.asarray(dataset.with_format("numpy")["row"][:]) if has_rows else np.arange(len(dataset))
        )
        self._images = _undecoded(dataset.with_format(None).select_columns(["image"]))
        self.captions = self._read_captions(dataset) if "caption" in dataset.column_names else None
        self.pixels = self._decode_all() if preload else None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = int(self.rows[index])
        if self.pixels is not None:
            image = self.pixels[index]
        else:
            image = decode_image(self._images[int(index)], row, self.source)
        item = {"image": image, "row": row}
        if self.labelled:
            item["label"] = int(self.labels[index])
        return item if self.captions is None else item | {"caption": self.captions[index]}

    def _read_captions(self, dataset: hf.Dataset) -> list[str]:
        captions = dataset.with_format(None).select_columns(["caption"])["caption"][:]
        return [checked_caption(text, int(row), self.source) for text, row in zip(captions, self.rows)]

    def _decode_all(self) -> torch.Tensor:
        pixels = None
        for index, example in enumerate(self._images):
            image = _to_uint8(decode_image(example, int(self.rows[index]), self.source))
            if pixels is None:
                pixels = torch.empty(len(self), *image.shape, dtype=torch.uint8)
            elif image.shape != pixels.shape[1:]:
                raise MixedSizesError(
                    f"preload needs images of one size, but row {self.rows[0]} of {self.source} is "
                    f"{_size(pixels[0])} and row {self.rows[index]} is {_size(image)}; use preload=False "
                    "and threat_space='model'."
                )
            pixels[index] = image
        return pixels


class PixelStream(torch.utils.data.IterableDataset):
    """Streamed counterpart of `PixelDataset`, with labels and captions where the stream has them.

    Without a ``row`` column, ``row`` counts the examples that this process or worker has read, from 0.

    Raises:
        LabelRangeError: no label, or one outside 0..num_classes-1 where that is given, naming the row.
        UnreadableImageError: naming the row.
        EmptyCaptionError: likewise.
    """

    def __init__(
        self, dataset: hf.IterableDataset, *, num_classes: int | None = None, source: str = "stream"
    ):
        _require_images(dataset)
        self.source, self.num_classes, self.label_names = source, num_classes, label_names(dataset)
        self.labelled = dataset.column_names is None or "label" in dataset.column_names
        self._dataset = _undecoded(dataset)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for position, example in enumerate(self._dataset):
            row = example.get("row", position)
            item = {"image": decode_image(example, row, self.source), "row": row}
            if self.labelled:
                item["label"] = self._label(example, row)
            if "caption" in example:
                item["caption"] = checked_caption(example["caption"], row, self.source)
            yield item

    def _label(self, example: Mapping[str, Any], row: int) -> int:
        if example["label"] is None:
            raise LabelRangeError(f"row {row} of {self.source} has no label; drop such rows first.")
        if self.num_classes is not None:
            check_label_range(np.array([example["label"]]), self.num_classes, np.array([row]))
        return int(example["label"])

    def set_epoch(self, epoch: int) -> None:
        """Passed on, so that a shuffled stream gives a new order each epoch."""
        self._dataset.set_epoch(epoch)


class PixelCollator:
    """Collate examples ``{"image", "label"}`` into ``{"pixels", "labels"}``.

    ``pixels`` is float32 (B, 3, H, W) in [0, 1], before any normalisation, which belongs inside the attacked
    function; ``labels`` is int64 (B,), -1 for examples without ``label``. Examples with a ``caption`` add
    ``captions``, a list of B texts.

    Args:
        image_processor: of the model (or a processor that holds one); only ``resolution="model"`` uses it.
        resolution: threat space of the attack. ``"native"`` keeps each image's own size (OC-1),
            ``"model"`` applies the processor's own resize and crop with its PIL backend.
        class_map: LongTensor (C,) from dataset label to class index (`ClassSet.index_map`).

    Raises:
        ValueError: unknown `resolution`, or a processor that does not rescale 0..255 to [0, 1].
        TypeError: ``resolution="model"`` without a processor.
        MixedSizesError: on a call, native images of different sizes.
        LabelRangeError: on a call, a label outside `class_map`.
    """

    def __init__(
        self,
        image_processor: Any = None,
        resolution: Literal["native", "model"] = "native",
        class_map: torch.Tensor | Sequence[int] | None = None,
    ):
        if resolution not in ("native", "model"):
            raise ValueError(f"resolution must be 'native' or 'model', got {resolution!r}.")
        self.image_processor = None
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
        self.class_map = None if class_map is None else torch.as_tensor(class_map, dtype=torch.long)

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor | list[str]]:
        rows = [int(example.get("row", index)) for index, example in enumerate(examples)]
        images = [example["image"] for example in examples]
        pixels = self._native(images, rows) if self.resolution == "native" else self._resized(images)
        labelled = "label" in examples[0]
        labels = torch.tensor([example["label"] if labelled else -1 for example in examples])
        if labelled and self.class_map is not None:
            # an unlabelled -1 would otherwise silently pick the last class
            check_label_range(labels.numpy(), len(self.class_map), np.array(rows))
            labels = self.class_map[labels]
        batch = {"pixels": pixels, "labels": labels}
        if "caption" in examples[0]:
            batch["captions"] = [example["caption"] for example in examples]
        return batch

    @staticmethod
    def _native(images: Sequence[Any], rows: Sequence[int]) -> torch.Tensor:
        tensors = [_to_uint8(image) for image in images]
        for row, tensor in zip(rows, tensors):
            if tensor.shape != tensors[0].shape:
                raise MixedSizesError(
                    f"a batch at native resolution needs images of one size, but row {rows[0]} is "
                    f"{_size(tensors[0])} and row {row} is {_size(tensor)}; use threat_space='model' (the "
                    "collator's resolution='model') or resize the images beforehand."
                )
        return torch.stack(tensors).contiguous().to(torch.float32).div_(255)

    def _resized(self, images: Sequence[Any]) -> torch.Tensor:
        images = [_to_pil(image) for image in images]
        batch = self.image_processor(images=images, do_rescale=True, do_normalize=False, return_tensors="pt")
        return batch["pixel_values"].to(torch.float32)


def _require_images(dataset: hf.Dataset | hf.IterableDataset) -> None:
    names = dataset.column_names
    if names is not None and "image" not in names:
        raise ValueError(f"the dataset has no column 'image' but {names}; load_images gives it that name.")


def _undecoded(dataset):
    return dataset.cast_column("image", hf.Image(decode=False))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        # PIL would clip them to white without a word
        raise ValueError(
            f"mode {image.mode!r} has more than 8 bits a channel; convert the image to 8 bits first"
        )
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_uint8(image: Any) -> torch.Tensor:
    """uint8 tensor (3, H, W) of a PIL image or of such a tensor."""
    if isinstance(image, torch.Tensor):
        if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
            raise TypeError(f"image tensors must be uint8 (3, H, W), got {image.dtype} {tuple(image.shape)}.")
        return image
    if not isinstance(image, Image.Image):
        raise TypeError(f"images must be PIL images or uint8 tensors, got {type(image).__name__}.")
    return torch.from_numpy(np.array(_to_rgb(image))).permute(2, 0, 1)


def _to_pil(image: Any) -> Image.Image:
    if isinstance(image, Image.Image):
        return _to_rgb(image)
    return Image.fromarray(_to_uint8(image).permute(1, 2, 0).contiguous().numpy())


def _size(image: torch.Tensor) -> str:
    return f"{image.shape[2]}x{image.shape[1]}"


def _pil_backend(processor: Any) -> Any:
    """The processor's PIL twin where it has one: torchvision resizes differently."""
    import transformers

    name = type(processor).__name__
    twin = getattr(transformers, name.removesuffix("Fast") + "Pil", None)
    if name.endswith("Pil") or twin is None:
        return processor
    return twin.from_dict(processor.to_dict())
