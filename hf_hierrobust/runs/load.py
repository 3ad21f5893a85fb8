"""The first stage of a run: model, data and trees, loaded and checked against each other."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from datasets import Dataset, IterableDataset
from transformers import AutoProcessor

from ..data import (
    ClassSet,
    ImageStream,
    ImageView,
    as_images,
    available_class_sets,
    check_numbering,
    class_set_of,
    first_n,
    label_array,
    label_names,
    load_class_set,
    load_images,
    shuffled_stream,
    stratified_rows,
)
from ..evaluation import EvaluationSet
from ..modeling import load_robust_model
from ..naming import public_name
from ..progress import say
from ..training import RobustTrainingArguments
from ..training.intake import forest_for
from .arguments import RunArguments
from .checks import check_evaluation, check_prompts, worth_preloading
from .run import Run

GLYPH_TRAIN_IMAGES = 6000


def load_run(args: RunArguments, training_args: RobustTrainingArguments, training: bool = True) -> Run:
    """Load model, data and trees, and check that they fit together.

    Args:
        training: False needs no training data, for runs that only evaluate.
    """
    trained = training_args.build_objective().trained_groups if training else ("hier_head",)
    check_evaluation(
        args, training_args.threat, training_args.tree is not None, trains_head="hier_head" in trained
    )
    say(f"data: {public_name(args.eval_source)}")
    train, evaluation = None, _evaluation_data(args, training_args.seed)
    if training:
        train = _training_data(args, training_args.seed)
    named = evaluation if train is None or args.unlabelled else train
    class_set = _class_set(args, training_args.tree, named)
    evaluation = as_images(evaluation, class_set, name=args.eval_source)
    if train is not None:
        train = _training_images(train, class_set, args, training_args.threat_space)
    check_numbering({"the training data": train, "the evaluation data": evaluation})
    path = _model_path(args, training_args.seed)
    say(f"model: {public_name(path)}")
    model = load_robust_model(path)
    processor = AutoProcessor.from_pretrained(path)
    forest = forest_for(None, training_args, class_set, model, processor.tokenizer)
    main = EvaluationSet(
        name=args.eval_name,
        dataset=evaluation,
        class_set=class_set,
        split=args.eval_split,
        tree=forest.trees[0] if forest is not None else None,
        num_samples=args.eval_samples,
    )
    others = [_zero_shot_set(pair, args) for pair in (args.zero_shot or "").split(",") if pair]
    template = args.prompt_template(training_args.template)
    check_prompts((main, *others), model, processor.tokenizer, template)
    return Run(
        args,
        training_args,
        model,
        processor,
        class_set,
        forest,
        train,
        [main, *others],
    )


def _training_data(args: RunArguments, seed: int) -> Dataset | IterableDataset:
    if args.dataset_name == "glyphs":
        from ..demo.glyphs import glyph_dataset

        count = args.skip_train_samples + (args.max_train_samples or GLYPH_TRAIN_IMAGES)
        train = glyph_dataset("train", num_images=count, seed=seed, cache_dir=_cache())
    elif args.dataset_name is None and args.train_file is None:
        raise ValueError(f"no training data: give train_file beside eval_file={args.eval_file!r}")
    else:
        train = load_images(
            args.train_source,
            split=args.train_split,
            config=args.dataset_config,
            streaming=args.streaming,
            caption_column=args.caption_column,
            labelled=not args.unlabelled,
            **_columns(args),
        )
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
    if args.unlabelled:
        return first_n(train, args.max_train_samples)
    return train.select(stratified_rows(label_array(train), args.max_train_samples)[0])


def _training_images(
    train: Dataset | IterableDataset, class_set: ClassSet, args: RunArguments, space: str
) -> ImageView | ImageStream:
    preload = isinstance(train, Dataset) and space == "native" and worth_preloading(train)
    return as_images(train, class_set, labelled=not args.unlabelled, preload=preload, name=args.train_source)


def _evaluation_data(args: RunArguments, seed: int) -> Dataset:
    if args.dataset_name == "glyphs":
        from ..demo.glyphs import glyph_dataset

        return glyph_dataset("test", num_images=args.eval_samples, seed=seed, cache_dir=_cache())
    return load_images(args.eval_source, split=args.eval_split, config=args.dataset_config, **_columns(args))


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


def _model_path(args: RunArguments, seed: int) -> str:
    if args.model_name_or_path != "glyphs":
        return args.model_name_or_path
    from ..demo.glyphs import glyph_dataset, glyph_paths
    from ..demo.pretraining import PretrainRecipe, pretrain_glyph_clip

    # Other images than those of the robust training, which come from the run's own seed.
    dataset = glyph_dataset("train", num_images=GLYPH_TRAIN_IMAGES, seed=seed + 1, cache_dir=_cache())
    recipe = PretrainRecipe(seed=seed)
    return str(pretrain_glyph_clip(_cache(), dataset=dataset, paths=glyph_paths(), recipe=recipe))


def _cache() -> Path:
    """Where rendered images and the pretrained tiny model are kept between runs."""
    return Path(os.environ.get("HF_HIERROBUST_CACHE", "~/.cache/hf_hierrobust")).expanduser()


def _zero_shot_set(pair: str, args: RunArguments) -> EvaluationSet:
    name, _, source = pair.partition("=")
    if not source:
        raise ValueError(f"zero_shot={pair!r} must be name=source, e.g. cifar10=data/cifar10/test.parquet")
    dataset = load_images(source, split=args.eval_split)
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
        split=args.eval_split,
        num_samples=args.eval_samples,
    )
