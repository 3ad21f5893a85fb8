"""Images with their captions, one or several each, for retrieval."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Any

import datasets as hf

from .columns import EmptyCaptionError, MissingColumnError, is_text
from .images import as_images
from .sources import describe, open_source
from .standard import standard_dataset
from .views import ImageView

COLUMNS = ("caption", "captions", "sentences", "text")
"""Usual names of a column of captions; two of them in one data set have to be told apart by the caller."""


@dataclass(frozen=True)
class CaptionedImages:
    """N images and, of each, its captions.

    Attributes:
        images: without labels.
        captions: N non-empty lists of texts.
        name: what records call the data.
    """

    images: ImageView
    captions: list[list[str]]
    name: str
    split: str

    def select(self, count: int | None) -> CaptionedImages:
        """The first so many images; None takes all."""
        if count is None or count >= len(self.captions):
            return self
        if count < 1:
            raise ValueError(f"num_samples={count} must be at least 1, or None for all images")
        return CaptionedImages(self.images.select(range(count)), self.captions[:count], self.name, self.split)

    def captions_hash(self) -> str:
        """SHA-256 over the captions of the images in their order."""
        digest = hashlib.sha256()
        for texts in self.captions:
            for text in texts:
                digest.update(text.encode() + b"\0")
            digest.update(b"\1")
        return digest.hexdigest()


def captioned_images(
    dataset: Any,
    *,
    split: str = "test",
    config: str | None = None,
    image_column: str | None = None,
    caption_column: str | None = None,
    name: str = "dataset",
) -> CaptionedImages:
    """Open a data set whose rows are an image and a caption, or a list of captions.

    Args:
        dataset: a `datasets.Dataset`, or a path or Hub id as of `load_images`.
        split, config, image_column: as of `load_images`.
        caption_column: by default the one of `COLUMNS` that is there.

    Raises:
        TypeError: other data.
        MissingColumnError: no such column, several, or one of other things than texts.
        EmptyCaptionError: an image without a caption, or with a blank one; it names the row.
    """
    if isinstance(dataset, (str, os.PathLike)):
        where = f"{describe(dataset)} (split {split!r})"
        dataset = open_source(
            dataset, split, config=config, streaming=False, cache_dir=None, image_column=image_column
        )
    else:
        where = name
    if not isinstance(dataset, hf.Dataset):
        raise TypeError(
            f"{where} is a {type(dataset).__name__}: retrieval takes a datasets.Dataset, a path or a Hub id"
        )
    column = _column(dataset.features, caption_column, where)
    captions = [_texts(entry, row, where) for row, entry in enumerate(dataset[column])]
    plain = standard_dataset(dataset.remove_columns(column), where, image_column=image_column, labelled=False)
    plain = plain.cast_column("image", hf.Image())
    return CaptionedImages(as_images(plain, labelled=False, name=where), captions, name, split)


def _column(features: hf.Features, requested: str | None, where: str) -> str:
    if requested is not None and requested not in features:
        raise MissingColumnError(
            f"caption_column={requested!r} is no column of {where}: it has {', '.join(features)}"
        )
    names = [requested] if requested else [one for one in COLUMNS if one in features]
    fitting = [
        one for one in names if is_text(features[one]) or is_text(getattr(features[one], "feature", None))
    ]
    if len(fitting) == 1:
        return fitting[0]
    if requested:
        raise MissingColumnError(
            f"caption_column={requested!r} of {where} has type {features[requested]}, not text or lists of it"
        )
    found = "several" if fitting else "none"
    raise MissingColumnError(
        f"{where} has {found} of the columns {', '.join(COLUMNS)} with captions (its columns: "
        f"{', '.join(features)}): give caption_column"
    )


def _texts(entry: object, row: int, where: str) -> list[str]:
    texts = [entry] if isinstance(entry, str) else entry
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise EmptyCaptionError(f"row {row} of {where} has no caption but {entry!r}: drop such rows")
    return [text.strip() for text in texts]
