"""Test images in the training set: the same file, or equal pixels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .decoding import to_uint8
from .sources import Source, local_files
from .views import ImageStream, ImageView


class SameSourceError(ValueError):
    """Training and evaluation would read the same images."""


def check_sources_differ(
    train: Source, evaluation: Source, train_split: str = "train", eval_split: str = "test"
) -> None:
    """Refuse one source for training and evaluation: a file given twice, or one folder and split.

    Different slices of one split (``train[:80%]``, ``train[80%:]``) are taken as meant.

    Raises:
        SameSourceError: names what is shared, and ``holdout``, which splits one source honestly.
    """
    files = [_files(source) for source in (train, evaluation)]
    if None in files:
        if _place(train) != _place(evaluation) or train_split != eval_split:
            return
        shared = f"{str(train)!r} (split {train_split!r})"
    else:
        both = sorted(files[0] & files[1])
        sliced = "[" in train_split and "[" in eval_split and train_split != eval_split
        if not both or sliced:
            return
        shared = repr(both[0])
    raise SameSourceError(
        f"{shared} is given for training and for evaluation: what is measured on training images says "
        "nothing. Give other images, or hold out a part of one source (holdout=0.2)."
    )


def shared_images(train: ImageView | ImageStream, evaluation: ImageView) -> int | None:
    """How many evaluation images also occur in the training set, by their decoded pixels.

    Training images of sizes that no evaluation image has are not decoded. None for a stream, whose images
    come and go.
    """
    if isinstance(train, ImageStream):
        return None
    held: dict[bytes, int] = {}
    sizes = set()
    for index in range(len(evaluation)):
        sizes.add(evaluation.size_of(index))
        digest = pixel_digest(evaluation[index]["image"])
        held[digest] = held.get(digest, 0) + 1
    found = set()
    for index in range(len(train)):
        if train.size_of(index) in sizes:
            found.add(pixel_digest(train[index]["image"]))
    return sum(count for digest, count in held.items() if digest in found)


def pixel_digest(image) -> bytes:
    """SHA-256 of an image's size and 8-bit RGB pixels, whatever file format they came in."""
    pixels = np.ascontiguousarray(to_uint8(image).numpy())
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()


def _files(source: Source) -> set[str] | None:
    files = local_files(source)
    return None if files is None else {os.path.realpath(file) for file in files}


def _place(source: Source) -> str | Sequence:
    if isinstance(source, (list, tuple)):
        return tuple(map(str, source))
    path = Path(source).expanduser()
    return os.path.realpath(path) if path.exists() else str(source)
