"""Images of a dataset of `load_images` one by one: decoded, numbered by row, with label and caption."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import datasets as hf
import numpy as np
import torch

from .columns import checked_caption, is_text
from .decoding import decode_image, follows_paths, image_size, size_text, to_uint8
from .labels import integer_label, label_array, label_names
from .standard import EmptyDatasetError


class MixedSizesError(ValueError):
    """Images of different sizes where one tensor has to hold them all."""


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
        self.labels = label_array(dataset, source) if self.labelled else np.full(len(dataset), -1)
        has_rows = "row" in dataset.column_names
        self.rows = (
            np.asarray(dataset.with_format("numpy")["row"][:]) if has_rows else np.arange(len(dataset))
        )
        self._images = _undecoded(dataset.with_format(None).select_columns(["image"]))
        self._follow = follows_paths(dataset)
        self.captions = self._read_captions(dataset) if "caption" in dataset.column_names else None
        self.pixels = self._decode_all() if preload else None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = int(self.rows[index])
        if self.pixels is not None:
            image = self.pixels[index]
        else:
            image = decode_image(self._images[int(index)], self._place(row), follow=self._follow)
        item = {"image": image, "row": row}
        if self.labelled:
            item["label"] = int(self.labels[index])
        return item if self.captions is None else item | {"caption": self.captions[index]}

    def size_of(self, index: int) -> tuple[int, int]:
        """Width and height of one image, from its header alone where it is a file."""
        if self.pixels is not None:
            return tuple(self.pixels.shape[:1:-1])
        return image_size(self._images[int(index)], self._place(self.rows[index]), follow=self._follow)

    def _read_captions(self, dataset: hf.Dataset) -> list[str]:
        captions = dataset.with_format(None).select_columns(["caption"])["caption"][:]
        return [checked_caption(text, self._place(row)) for text, row in zip(captions, self.rows)]

    def _place(self, row: int) -> str:
        return f"row {row} of {self.source}"

    def _decode_all(self) -> torch.Tensor:
        pixels = None
        for index, example in enumerate(self._images):
            image = to_uint8(decode_image(example, self._place(self.rows[index]), follow=self._follow))
            if pixels is None:
                pixels = torch.empty(len(self), *image.shape, dtype=torch.uint8)
            elif image.shape != pixels.shape[1:]:
                raise MixedSizesError(
                    f"preload needs images of one size, but row {self.rows[0]} of {self.source} is "
                    f"{size_text(pixels[0])} and row {self.rows[index]} is {size_text(image)}; use "
                    "preload=False and threat_space='model' (space='model' of evaluate)."
                )
            pixels[index] = image
        return pixels


class PixelStream(torch.utils.data.IterableDataset):
    """Streamed counterpart of `PixelDataset`, with labels (also text) and captions where it has them.

    A stream of `load_images` adds ``"file"`` to its items, the file or shard whose ``row`` the image is. In
    any other ``row`` counts the examples that this process or worker has read, from 0.

    Raises:
        LabelRangeError: no label, or none that is a whole number, naming file and row.
        UnreadableImageError, EmptyCaptionError: likewise.
    """

    def __init__(self, dataset: hf.IterableDataset, *, source: str = "stream"):
        _require_images(dataset)
        self.source, self.label_names = source, label_names(dataset)
        self.labelled = dataset.column_names is None or "label" in dataset.column_names
        self.text_labels = is_text((dataset.features or {}).get("label"))
        self._follow = follows_paths(dataset)
        self._dataset = _undecoded(dataset)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for position, example in enumerate(self._dataset):
            item = {"row": example.get("row", position)}
            if "file" in example:
                item["file"] = example["file"]
            where = f"row {item['row']} of {item.get('file', self.source)}"
            if "row" not in example:
                where = f"example {position} (in reading order) of {self.source}"
            item["image"] = decode_image(example, where, follow=self._follow)
            if self.labelled:
                label = example["label"]
                item["label"] = label if isinstance(label, str) else integer_label(label, where)
            if "caption" in example:
                item["caption"] = checked_caption(example["caption"], where)
            yield item

    def set_epoch(self, epoch: int) -> None:
        """Passed on, so that a shuffled stream gives a new order each epoch."""
        self._dataset.set_epoch(epoch)


def _require_images(dataset: hf.Dataset | hf.IterableDataset) -> None:
    names = dataset.column_names
    if names is not None and "image" not in names:
        raise ValueError(f"the dataset has no column 'image' but {names}; load_images gives it that name.")


def _undecoded(dataset):
    return dataset.cast_column("image", hf.Image(decode=False))
