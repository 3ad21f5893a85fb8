"""The images of a training and of its evaluations, in the classes of one class set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import torch
from torch.utils.data import Dataset, IterableDataset
from transformers import logging

from ..data import ClassSet, ImageStream, ImageView, as_images, check_numbering, stratified_rows
from ..objectives import Objective
from .arguments import RobustTrainingArguments

logger = logging.get_logger(__name__)


CAPTIONS = frozenset({"captions", "attacked_captions"})
"""Needs of objectives that train on texts of images."""


def training_images(dataset, class_set: ClassSet) -> ImageView | ImageStream | None:
    """Training images in the classes of the class set; images without labels stay so.

    Raises:
        ValueError: labels that fit no class; see `as_images`.
    """
    return None if dataset is None else as_images(dataset, class_set, labelled=None, name="train_dataset")


def evaluation_sets(
    datasets, class_set: ClassSet, samples: int, beside: ImageView | ImageStream | None = None
) -> ImageView | dict[str, ImageView] | None:
    """`evaluation_images` of one set or of a dict of several; None stays None."""
    if datasets is None:
        return None
    if isinstance(datasets, dict) and not hasattr(datasets, "column_names"):
        return {
            name: evaluation_images(data, class_set, samples, f"eval_dataset[{name!r}]", beside)
            for name, data in datasets.items()
        }
    return evaluation_images(datasets, class_set, samples, beside=beside)


def evaluation_images(
    dataset: Dataset | IterableDataset,
    class_set: ClassSet,
    samples: int | None = None,
    name: str = "eval_dataset",
    beside: ImageView | ImageStream | None = None,
) -> ImageView:
    """An evaluation set in the classes of the class set: ``samples`` images, stratified by class.

    Of a stream they are its first ones, read and kept here.

    Args:
        samples: None takes all images.
        beside: the training images, whose labels must count the same classes.

    Raises:
        ValueError: no labels, labels that fit no class, or numbers without names beside names.
    """
    view = as_images(dataset, class_set, labelled=None, name=name)
    if not view.labelled:
        raise ValueError(f"{name} has no labels to measure accuracy by")
    check_numbering({"train_dataset": beside, name: view})
    if isinstance(view, ImageStream):
        logger.warning(f"{name} is a stream: its first {samples or 'and all further'} images are evaluated")
        view = as_images(_Read(list(islice(view, samples)), view.label_names), class_set, name=name)
    if samples is None:
        return view
    rows, how = stratified_rows(view.labels, samples)
    return view if how == "all rows" else view.select(rows)


@contextmanager
def every_image(args: RobustTrainingArguments) -> Iterator[None]:
    """Data loaders made inside keep a last batch that is not full, whatever ``dataloader_drop_last`` says."""
    before, args.dataloader_drop_last = args.dataloader_drop_last, False
    try:
        yield
    finally:
        args.dataloader_drop_last = before


def spread_examples(dataset: ImageView | ImageStream, count: int) -> list[dict]:
    """``count`` items spread over the whole set: folders come sorted by class. Of a stream the first."""
    if not hasattr(dataset, "__len__"):
        return list(islice(iter(dataset), count))
    rows = torch.linspace(0, len(dataset) - 1, min(count, len(dataset))).long()
    return [dataset[row] for row in rows.tolist()]


class _Read(Dataset):
    """Items that a stream gave."""

    def __init__(self, items: list[dict], label_names: list[str] | None):
        self.items, self.label_names = items, label_names
        self.labels = [item["label"] for item in items]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict:
        return self.items[index]


def check_training_images(
    args: RobustTrainingArguments, objective: Objective, train: ImageView | ImageStream | None
) -> None:
    """Refuse images that the objective cannot train on.

    Raises:
        ValueError: no labels where it needs them, neither labels nor captions where it needs captions; for
            objectives that contrast images with captions also one pair a batch, or a stream that one process
            would read for the others.
    """
    if objective.needs & CAPTIONS:
        _check_pairs(args, objective, train)
    if train is None or train.labelled:
        return
    if objective.uses_labels:
        raise ValueError(
            f"objective {objective.name!r} needs class labels, which train_dataset lacks under its options: "
            "train fare, agft or advflyp, or give labelled images"
        )
    if "captions" in objective.needs and getattr(train, "captions", ()) is None:
        raise ValueError(
            f"objective {objective.name!r} needs captions, but train_dataset has neither captions nor labels "
            "to make class prompts of: give caption_column"
        )


def _check_pairs(args: RobustTrainingArguments, objective: Objective, train: Dataset | None) -> None:
    """Refuse what objectives that contrast images with captions cannot train on.

    Raises:
        ValueError: one pair a batch, or captions of a stream that one process would send to the others.
    """
    if args.train_batch_size * args.world_size == 1:
        raise ValueError(
            f"per_device_train_batch_size=1: {objective.name!r} contrasts the pairs of a batch, and one has "
            "no other; take at least 2 (accumulation adds no negatives)"
        )
    if isinstance(train, IterableDataset):
        # accelerate would read on one process and send tensors to the others: captions are none.
        if args.accelerator_config.dispatch_batches:
            raise ValueError("dispatch_batches=True cannot send captions between processes: leave it out")
        args.accelerator_config.dispatch_batches = False
