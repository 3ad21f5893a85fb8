"""Sets of images to measure on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from torch.utils.data import DataLoader, Dataset

from ..data import ClassSet, ImageView, PixelCollator, as_images, stratified_rows
from ..digests import digest_of, tensor_digest
from ..hierarchy import LabelTree
from ..naming import level_name
from ..options import check_given
from .shards import Shards


def check_choice(name: str, level: int, classes: int) -> None:
    """Refuse a level whose classifiers would have nothing to choose.

    Raises:
        ValueError: it has one class.
    """
    if classes < 2:
        what = "class set" if level == 0 else "tree"
        raise ValueError(
            f"the {level_name(level)} level of {name!r} has {classes} class, so that every image is right "
            f"under any attack: give a {what} with at least two there"
        )


@dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """Labelled images with their classes.

    Args:
        name, split: for the record.
        dataset: whatever `as_images` takes; labels are found in the class set by name.
        class_set: the classes.
        tree: class tree, or None for leaves only.
        num_samples: how many images, stratified by class; None takes all.
        chosen: the rows in place of such a choice, and how they were chosen, in words.
        shared_with_training: how many of the images the model was trained on, if someone has counted.

    Raises:
        TypeError: a stream, whose images can't be chosen.
        ValueError: see `as_images`; the images have no labels, `num_samples` is below 1, a level has one
            class only, or `chosen` names no rows, rows that are not there, or one twice.
    """

    name: str
    dataset: Dataset
    class_set: ClassSet
    split: str = "test"
    tree: LabelTree | None = None
    num_samples: int | None = None
    chosen: tuple[Sequence[int], str] | None = None
    shared_with_training: int | None = None

    def __post_init__(self):
        images = self.images
        if not isinstance(images, ImageView):
            raise TypeError(f"{self.name!r} is a stream: evaluate a data set of known length")
        if not images.labelled:
            raise ValueError(f"the images of {self.name!r} have no labels to measure accuracy by")
        check_given(num_samples=self.num_samples)
        for level, size in enumerate(self.tree.sizes if self.tree else [len(self.class_set)]):
            check_choice(self.name, level, size)
        count = len(images) if self.num_samples is None else self.num_samples
        rows = stratified_rows(images.labels, count) if self.chosen is None else self.chosen
        if len(set(rows[0])) < max(1, len(rows[0])) or not all(0 <= row < len(images) for row in rows[0]):
            raise ValueError(f"chosen must name distinct rows of {self.name!r} in 0..{len(images) - 1}")
        object.__setattr__(self, "_rows", rows)

    @cached_property
    def images(self) -> ImageView:
        """All images, their labels class indices."""
        return as_images(self.dataset, self.class_set, labelled=None, name=self.name)

    @cached_property
    def images_hash(self) -> str:
        """Digest of the chosen images as they are, before a model's processor sees them."""
        images = (self.images[row]["image"] for row in self.rows)
        return digest_of([tensor_digest(np.asarray(image)) for image in images])

    @property
    def rows(self) -> list[int]:
        """Rows that are evaluated, ascending."""
        return list(self._rows[0])

    @property
    def how(self) -> str:
        """How they were chosen, in words."""
        return self._rows[1]

    def part(self, count: int) -> EvaluationSet:
        """At most so many of the images that are evaluated, stratified by class."""
        rows = self.rows
        places, how = stratified_rows([self.images.labels[row] for row in rows], count)
        return replace(self, chosen=([rows[place] for place in places], f"{how}, of {self.how}"))

    def batches(self, batch_size: int) -> list[list[int]]:
        """Rows of each batch, in their order; the last batch may be smaller."""
        rows = self.rows
        return [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]

    def loader(
        self, processor, space: str, batch_size: int, shards: Shards | None = None, skip: int = 0
    ) -> DataLoader:
        """Batches of the chosen images, in the order of their rows.

        Args:
            processor: of the model; only the space ``"model"`` needs it.
            shards: the processes that share the batches; None is this one alone.
            skip: how many of this process's batches to leave out at the beginning.
        """
        collator = PixelCollator(getattr(processor, "image_processor", processor), space)
        mine = (shards or Shards()).mine(self.batches(batch_size))[skip:]
        return DataLoader(self.images, batch_sampler=mine, collate_fn=collator)
