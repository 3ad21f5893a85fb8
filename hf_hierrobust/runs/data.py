"""The images of a run: opened, split, counted by the same classes, and kept apart."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from datasets import Dataset, IterableDataset
from transformers import logging

from ..data import (
    ClassSet,
    ImageStream,
    ImageView,
    MissingSplitError,
    as_images,
    available_class_sets,
    check_numbering,
    check_sources_differ,
    class_set_of,
    first_n,
    holdout,
    label_array,
    label_names,
    load_class_set,
    load_images,
    shared_images,
    shuffled_stream,
    stratified_rows,
)
from ..evaluation import EvaluationSet
from ..naming import public_name
from ..options import named_sources
from ..training import RobustTrainingArguments
from .arguments import RunArguments
from .checks import worth_preloading

GLYPH_TRAIN_IMAGES = 6000
MAX_COMPARED = 50_000
"""Training images that are decoded only to be compared with the evaluation's."""
logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class RunData:
    """The images of a run in the classes of one class set.

    Attributes:
        train: None for runs that only evaluate.
        split: of the evaluation images, for the record.
        others: further sets to evaluate.
    """

    class_set: ClassSet
    train: ImageView | ImageStream | None
    evaluation: ImageView
    split: str
    others: list[EvaluationSet]

    def main_set(self, args: RunArguments, tree) -> EvaluationSet:
        """The evaluation set; it says how many of its images are trained on, and warns if any is."""
        data = EvaluationSet(
            name=args.eval_name,
            dataset=self.evaluation,
            class_set=self.class_set,
            split=self.split,
            tree=tree,
            num_samples=args.eval_samples,
        )
        if self.train is None:
            return data
        preloaded = getattr(getattr(self.train, "items", None), "pixels", None) is not None
        if isinstance(self.train, ImageStream) or (len(self.train) > MAX_COMPARED and not preloaded):
            logger.warning("training images: a stream or too many to be compared with the evaluation's")
            return data
        count = shared_images(self.train, self.evaluation.select(data.rows))
        if count:
            logger.warning(
                f"{count} of {len(data.rows)} evaluation images are also training images: what is "
                "measured on them says nothing about new ones"
            )
        return replace(data, shared_with_training=count)


def load_data(args: RunArguments, training_args: RobustTrainingArguments, training: bool) -> RunData:
    """Open the data of a run and settle the threat space that their sizes allow.

    Raises:
        ValueError: labels that fit no class, one source for training and evaluation, two sets of one name,
            and see `load_images`.
    """
    seed, further = training_args.seed, named_sources(args.zero_shot, "zero_shot")
    if args.eval_name in further:
        raise ValueError(
            f"zero_shot='{args.eval_name}={further[args.eval_name]}' is called like the evaluation set: "
            f"records could not tell the two apart; give eval_name, now {args.eval_name!r}, another value"
        )
    if args.holdout is not None:
        source, evaluation = holdout(_train_source(args, seed), args.holdout, seed=seed)
        split = f"{args.train_split}, held out"
    else:
        if training and args.dataset_name != "glyphs" and args.train_source is not None:
            check_sources_differ(args.train_source, args.eval_source, args.train_split, args.eval_split)
        source = _train_source(args, seed) if training else None
        evaluation, split = _evaluation_data(args, seed)
    train = _chosen(source, args, seed) if training else None
    named = evaluation if train is None or args.unlabelled else train
    class_set = _class_set(args, training_args.tree, named)
    evaluation = as_images(evaluation, class_set, name=args.eval_source)
    others = [_zero_shot_set(*pair, args) for pair in further.items()]
    if training:
        options = {"labelled": not args.unlabelled, "name": args.train_source}
        images = as_images(train, class_set, **options)
        training_args.settle_space(images, evaluation, *(one.images for one in others))
        if training_args.threat.space == "native" and isinstance(train, Dataset) and worth_preloading(train):
            images = as_images(train, class_set, preload=True, **options)
        train = images
    else:
        training_args.settle_space(evaluation, *(one.images for one in others))
    check_numbering({"the training data": train, "the evaluation data": evaluation})
    return RunData(class_set, train, evaluation, split, others)


def cache_folder() -> Path:
    """Where rendered images and the pretrained tiny model are kept between runs."""
    return Path(os.environ.get("HF_HIERROBUST_CACHE", "~/.cache/hf_hierrobust")).expanduser()


def _train_source(args: RunArguments, seed: int) -> Dataset | IterableDataset:
    if args.dataset_name == "glyphs":
        from ..demo.glyphs import glyph_dataset

        count = args.skip_train_samples + (args.max_train_samples or GLYPH_TRAIN_IMAGES)
        return glyph_dataset("train", num_images=count, seed=seed, cache_dir=cache_folder())
    if args.train_source is None:
        raise ValueError(f"no training data: give train_file beside eval_file={args.eval_file!r}")
    return load_images(
        args.train_source,
        split=args.train_split,
        config=args.dataset_config,
        streaming=args.streaming,
        caption_column=args.caption_column,
        labelled=not args.unlabelled,
        **_columns(args),
    )


def _chosen(train: Dataset | IterableDataset, args: RunArguments, seed: int) -> Dataset | IterableDataset:
    """The training images that ``skip_train_samples`` and ``max_train_samples`` leave."""
    if args.skip_train_samples:
        if not args.streaming and args.skip_train_samples >= len(train):
            raise ValueError(
                f"skip_train_samples={args.skip_train_samples} leaves none of {len(train)} training images"
            )
        train = train.skip(args.skip_train_samples)
    if args.streaming:
        train = train if args.max_train_samples is None else first_n(train, args.max_train_samples)
        return shuffled_stream(train, seed, args.shuffle_buffer)
    if args.max_train_samples is None:
        return train
    labels = [-1] * len(train) if args.unlabelled else label_array(train)
    return train.select(stratified_rows(labels, args.max_train_samples, seed)[0])


def _evaluation_data(args: RunArguments, seed: int) -> tuple[Dataset, str]:
    """The evaluation images and their split: the one asked for, or the only one of a source of their own."""
    if args.dataset_name == "glyphs":
        from ..demo.glyphs import glyph_dataset

        count = args.eval_samples
        return glyph_dataset("test", num_images=count, seed=seed, cache_dir=cache_folder()), args.eval_split
    if args.eval_file is not None:
        return _split_or_only(args.eval_file, args.eval_split, **_columns(args))
    options = {"config": args.dataset_config, **_columns(args)}
    return load_images(args.dataset_name, split=args.eval_split, **options), args.eval_split


def _split_or_only(source: str, split: str, **options) -> tuple[Dataset, str]:
    """A split of a source that is for evaluation alone, or, said aloud, the only split it has."""
    try:
        return load_images(source, split=split, **options), split
    except MissingSplitError as error:
        if len(error.known) > 1:
            raise
        only = error.known[0]
    logger.warning(f"{source} has no split {split!r}: {only!r}, its only one, is evaluated")
    return load_images(source, split=only, **options), only


def _columns(args: RunArguments) -> dict:
    return {"image_column": args.image_column, "label_column": args.label_column}


def _class_set(args: RunArguments, tree: str | None, dataset: Dataset | IterableDataset) -> ClassSet:
    if args.class_set is not None:
        return load_class_set(args.class_set)
    if tree in available_class_sets():
        return load_class_set(tree)
    both = args.train_file is None
    name, source = (args.eval_name, args.eval_source) if both else (args.train_name, args.train_source)
    return replace(class_set_of(dataset, name=source), name=public_name(name))


def _zero_shot_set(name: str, source: str, args: RunArguments) -> EvaluationSet:
    pair = f"{name}={source}"
    dataset, split = _split_or_only(source, args.eval_split)
    if name not in available_class_sets() and label_names(dataset) is None:
        raise ValueError(
            f"zero_shot={pair!r} does not name its classes: call it by a built-in class set "
            f"({', '.join(available_class_sets())}) or use a file with label names"
        )
    known = name in available_class_sets()
    class_set = load_class_set(name) if known else class_set_of(dataset, name=name)
    return EvaluationSet(
        name=name,
        dataset=as_images(dataset, class_set, name=source),
        class_set=class_set,
        split=split,
        num_samples=args.eval_samples,
    )
