"""The stages of a run, one function each: load, evaluate."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from datasets import Dataset, IterableDataset
from transformers import AutoProcessor, ProcessorMixin

from ..data import (
    ClassSet,
    PixelDataset,
    PixelStream,
    available_class_sets,
    first_n,
    label_array,
    label_names,
    load_class_set,
    load_images,
    representative_rows,
    shuffled_stream,
    validate_labels,
)
from ..evaluation import EvaluationSet, RobustnessRecord, evaluate_model
from ..hierarchy import Forest, LabelTree, induced_tree, load_tree, wordnet_tree
from ..modeling import RobustDualEncoder, encode_prompts, load_robust_model
from ..naming import public_name
from ..training import RobustTrainingArguments
from .arguments import RunArguments
from .checks import check_evaluation, check_prompts, with_label_ids_of, worth_preloading
from .run import Run

GLYPH_TRAIN_IMAGES = 6000


def load_run(args: RunArguments, training_args: RobustTrainingArguments, training: bool = True) -> Run:
    """Load model, data and trees, and check that they fit together.

    Args:
        training: False needs no training data, for runs that only evaluate.
    """
    trained = training_args.build_objective().trained_groups if training else ("hier_head",)
    check_evaluation(args, training_args.threat, trains_head="hier_head" in trained)
    train, evaluation = None, _evaluation_data(args, training_args.seed)
    if training:
        train = _training_data(args, training_args.seed)
    labelled = [evaluation] if train is None or args.unlabelled else [train, evaluation]
    names = label_names(labelled[0])
    labelled[-1] = evaluation = with_label_ids_of(evaluation, names)
    class_set = _class_set(args, names)
    num_labels = len(names) if names is not None else len(class_set)
    for dataset in labelled:
        validate_labels(dataset, num_labels)
    label_map = class_set.index_map(names) if names is not None else None
    path = _model_path(args, training_args.seed)
    model = load_robust_model(path)
    processor = AutoProcessor.from_pretrained(path)
    forest = None
    if args.tree is not None:
        forest = _forest(args.tree, class_set, model, processor, training_args.template)
    main = EvaluationSet(
        name=args.eval_name,
        dataset=PixelDataset(evaluation),
        class_set=class_set,
        split=args.eval_split,
        label_map=label_map,
        tree=forest.trees[0] if forest is not None else None,
        num_samples=args.eval_samples,
    )
    others = [_zero_shot_set(pair, args) for pair in (args.zero_shot or "").split(",") if pair]
    context = model.config.text_config.max_position_embeddings
    template = args.prompt_template(training_args.template)
    check_prompts((main, *others), processor.tokenizer, context, template)
    return Run(
        args,
        training_args,
        model,
        processor,
        class_set,
        forest,
        label_map,
        None if train is None else _training_images(train, num_labels, training_args.threat_space),
        [main, *others],
    )


def evaluate_run(
    run: Run, model: RobustDualEncoder, model_name: str, objective: str
) -> list[RobustnessRecord]:
    """Records of a model on all evaluation sets of a run."""
    model.to(run.training_args.device).eval()
    return evaluate_model(
        model,
        run.processor,
        run.eval_sets,
        run.args.plan(run.training_args.threat),
        model_name=model_name,
        objective=objective,
        template=run.args.prompt_template(run.training_args.template),
        classifiers=run.args.classifiers,
        batch_size=run.args.eval_batch,
        bf16_search=run.args.bf16_search,
        seed=run.training_args.seed,
        progress=not run.training_args.disable_tqdm,
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
            args.train_file or args.dataset_name,
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
    return train.select(representative_rows(label_array(train), args.max_train_samples)[0])


def _training_images(
    train: Dataset | IterableDataset, num_labels: int, space: str
) -> PixelDataset | PixelStream:
    if isinstance(train, IterableDataset):
        return PixelStream(train, num_classes=num_labels)
    return PixelDataset(train, preload=space == "native" and worth_preloading(train))


def _evaluation_data(args: RunArguments, seed: int) -> Dataset:
    if args.dataset_name == "glyphs":
        from ..demo.glyphs import glyph_dataset

        return glyph_dataset("test", num_images=args.eval_samples, seed=seed, cache_dir=_cache())
    source = args.eval_file or args.dataset_name
    return load_images(source, split=args.eval_split, config=args.dataset_config, **_columns(args))


def _columns(args: RunArguments) -> dict:
    return {"image_column": args.image_column, "label_column": args.label_column}


def _forest(
    spec: str, class_set: ClassSet, model: RobustDualEncoder, processor: ProcessorMixin, template: str
) -> Forest:
    """The trees of a comma-separated list: built-in names, JSON files, ``wordnet`` or ``induced``."""
    trees = []
    for part in (part.strip() for part in spec.split(",")):
        names = list(class_set.class_names)
        if part == "glyphs":
            from ..demo.glyphs import glyph_paths

            paths, origin = glyph_paths(), {"source": "hf_hierrobust", "licence": "Apache-2.0"}
            trees.append(LabelTree.from_paths(paths, name=part, **origin))
        elif part == "wordnet":
            senses = dict(zip(names, class_set.wnids)) if class_set.wnids else None
            depth = 5 if len(names) >= 500 else 3
            trees.append(wordnet_tree(names, senses=senses, depth=depth, name=part))
        elif part == "induced":
            sizes = tuple(size for size in (len(names) // 4, len(names) // 12) if size > 1)
            if not sizes:
                raise ValueError(
                    f"tree='induced' needs at least 8 classes to group, got {len(names)}: write a JSON tree"
                )
            prompts = [template.replace("{}", name) for name in names]
            states = encode_prompts(model, processor.tokenizer, prompts)
            with torch.no_grad():
                embeddings = model.project_text(states)
            trees.append(induced_tree(names, embeddings, level_sizes=sizes, name=part))
        else:
            trees.extend(load_tree(part))
    return Forest(tuple(tree.align(class_set.class_names) for tree in trees))


def _class_set(args: RunArguments, names: list[str] | None) -> ClassSet:
    if args.class_set is not None:
        return load_class_set(args.class_set)
    if args.tree in available_class_sets():
        return load_class_set(args.tree)
    if names is None:
        raise ValueError(
            "the data set does not name its classes: give class_set (built-in name or JSON file)"
        )
    name = args.eval_name if args.train_file is None else args.train_name
    return ClassSet.from_names(names, name=public_name(name))


def _model_path(args: RunArguments, seed: int) -> str:
    if args.model_name_or_path != "glyphs":
        return args.model_name_or_path
    from ..demo.glyphs import glyph_dataset, glyph_paths
    from ..demo.pretraining import PretrainRecipe, pretrain_glyph_clip

    # Other images than those of the robust training, which come from the run's own seed.
    dataset = glyph_dataset("train", num_images=GLYPH_TRAIN_IMAGES, seed=seed + 1, cache_dir=_cache())
    recipe = PretrainRecipe(seed=seed, bf16=not torch.accelerator.is_available())
    return str(pretrain_glyph_clip(_cache(), dataset=dataset, paths=glyph_paths(), recipe=recipe))


def _cache() -> Path:
    """Where rendered images and the pretrained tiny model are kept between runs."""
    return Path(os.environ.get("HF_HIERROBUST_CACHE", "~/.cache/hf_hierrobust")).expanduser()


def _zero_shot_set(pair: str, args: RunArguments) -> EvaluationSet:
    name, _, source = pair.partition("=")
    if not source:
        raise ValueError(f"zero_shot={pair!r} must be name=source, e.g. cifar10=data/cifar10/test.parquet")
    dataset = load_images(source, split=args.eval_split)
    names = label_names(dataset)
    if name not in available_class_sets() and names is None:
        raise ValueError(
            f"zero_shot={pair!r} does not name its classes: call it by a built-in class set "
            f"({', '.join(available_class_sets())}) or use a file with label names"
        )
    class_set = (
        load_class_set(name) if name in available_class_sets() else ClassSet.from_names(names, name=name)
    )
    validate_labels(dataset, len(names) if names is not None else len(class_set))
    return EvaluationSet(
        name=name,
        dataset=PixelDataset(dataset),
        class_set=class_set,
        split=args.eval_split,
        label_map=class_set.index_map(names) if names is not None else None,
        num_samples=args.eval_samples,
    )
