"""The stages of a run, one function each: load, evaluate, train, report."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import Dataset
from transformers import AutoProcessor, CLIPProcessor

from ..attacks import PGD
from ..data import (
    ClassSet,
    PixelDataset,
    PixelStream,
    available_class_sets,
    label_names,
    load_class_set,
    load_images,
    validate_labels,
)
from ..evaluation import EvaluationSet, RobustnessRecord, evaluate_model, save_records, with_base
from ..evaluation.records import public_name
from ..hierarchy import Forest, LabelTree, as_forest, load_tree
from ..modeling import PixelPipeline, RobustCLIPModel, ZeroShotClassifier, encode_prompts
from ..training import RobustCLIPTrainer, RobustTrainingArguments
from .arguments import RunArguments
from .checks import check_evaluation, with_label_ids_of, worth_preloading

GLYPH_TRAIN_IMAGES = 6000


@dataclass
class Run:
    """Everything loaded and checked, before anything expensive."""

    args: RunArguments
    training_args: RobustTrainingArguments
    model: RobustCLIPModel
    processor: CLIPProcessor
    class_set: ClassSet
    forest: Forest | None
    label_map: torch.Tensor | None
    train_dataset: Dataset
    eval_sets: list[EvaluationSet]

    @property
    def output_dir(self) -> Path:
        return Path(self.training_args.output_dir)


def load_run(args: RunArguments, training_args: RobustTrainingArguments, training: bool = True) -> Run:
    """Load model, data and trees, and check that they fit together.

    Args:
        training: False keeps the training images undecoded, for runs that only evaluate.
    """
    check_evaluation(args, training_args.threat)
    train, evaluation = _load_data(args, training_args.seed)
    names = label_names(train)
    evaluation = with_label_ids_of(evaluation, names)
    class_set = _class_set(args, names)
    forest = None if args.tree is None else _forest(args.tree).align(class_set.class_names)
    label_map = class_set.index_map(names) if names is not None else None
    num_labels = len(names) if names is not None else len(class_set)
    for dataset in (train, evaluation):
        validate_labels(dataset, num_labels)
    path = _model_path(args, training_args.seed)
    model = RobustCLIPModel.from_pretrained(path)
    processor = AutoProcessor.from_pretrained(path)
    tree = forest.trees[0] if forest is not None else None
    main = EvaluationSet(
        name=args.dataset_name or Path(args.eval_file).parent.name,
        dataset=PixelDataset(evaluation),
        class_set=class_set,
        split=args.eval_split,
        label_map=label_map,
        tree=tree,
        num_samples=args.eval_samples,
    )
    others = [_zero_shot_set(pair, args) for pair in (args.zero_shot or "").split(",") if pair]
    return Run(
        args,
        training_args,
        model,
        processor,
        class_set,
        forest,
        label_map,
        PixelStream(train, num_classes=num_labels)
        if args.streaming
        else PixelDataset(
            train,
            preload=training and training_args.threat_space == "native" and worth_preloading(train),
        ),
        [main, *others],
    )


def build_trainer(run: Run) -> RobustCLIPTrainer:
    """The trainer of a run."""
    return RobustCLIPTrainer(
        run.model,
        run.training_args,
        processor=run.processor,
        class_set=run.class_set,
        forest=run.forest,
        train_dataset=run.train_dataset,
        eval_dataset=run.eval_sets[0].dataset,
        label_map=run.label_map,
    )


def evaluate_run(run: Run, model: RobustCLIPModel, model_name: str, objective: str) -> list[RobustnessRecord]:
    """Records of a model on all evaluation sets of a run."""
    model.to(run.training_args.device).eval()
    return evaluate_model(
        model,
        run.processor,
        run.eval_sets,
        run.args.plan(run.training_args.threat),
        model_name=model_name,
        objective=objective,
        template=run.training_args.template,
        classifiers=run.args.classifiers,
        batch_size=run.args.eval_batch,
        bf16_search=run.args.bf16_search,
        seed=run.training_args.seed,
        progress=not run.training_args.disable_tqdm,
    )


def report(
    run: Run, trainer: RobustCLIPTrainer, base: list[RobustnessRecord], records: list[RobustnessRecord]
) -> list[RobustnessRecord]:
    """Write ``results.json``, trees, figures and the card; return the records with their base."""
    records = with_base(records, base)
    save_records(run.output_dir / "results.json", records)
    for tree in run.forest or ():
        (run.output_dir / f"{tree.name}.tree.json").write_text(json.dumps(tree.to_json(), indent=1))
    figures = _draw(run, trainer, records) if run.args.figures else []
    trainer.describe(records, figures, datasets=[run.eval_sets[0].name])
    trainer.create_model_card()
    return records


def _draw(run: Run, trainer: RobustCLIPTrainer, records: list[RobustnessRecord]) -> list[str]:
    """Figures of the run, as paths relative to the output directory."""
    from ..evaluation.plots import plot_ball, plot_before_after, plot_curves, plot_examples

    folder = run.output_dir / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    strongest = max(r.attack["eps"] for r in records)
    main = [
        r
        for r in records
        if r.dataset == records[0].dataset and r.attack["eps"] == strongest and "path" not in r.classifier
    ]
    figures = ["before_after.png", "examples.png"]
    plot_before_after(main, folder / "before_after.png")
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    if len(logged) > 1:
        plot_curves(trainer.state.log_history, folder / "training.png", terms=_terms(logged))
        figures.insert(1, "training.png")
    model, data = run.model, run.eval_sets[0]
    batch = next(iter(data.loader(run.processor, run.training_args.threat.space, 64)))
    pixels, labels = batch["pixels"].to(model.device), batch["labels"].to(model.device)
    pipeline = PixelPipeline(run.processor.image_processor)
    prompts = [run.training_args.template.replace("{}", n) for n in run.class_set.class_names]
    classifier = ZeroShotClassifier(model, pipeline, encode_prompts(model, run.processor.tokenizer, prompts))
    result = PGD(threat=run.training_args.threat)(classifier, pixels, labels)
    names = run.class_set.class_names
    with torch.no_grad():
        before, after = (classifier(x).argmax(1).tolist() for x in (pixels, result.adversarial))
    # One image that resists, then those that fall, then the rest: a row that shows both.
    order = torch.argsort(result.robust_correct.int() * 2 + (~result.clean_correct).int()).tolist()
    order = sorted(order[:4]) + [i for i in range(len(labels)) if result.robust_correct[i]][:2]
    plot_examples(
        pixels[order].cpu(),
        result.adversarial[order].cpu(),
        [names[before[i]] for i in order],
        [names[after[i]] for i in order],
        [names[labels[i]] for i in order],
        folder / "examples.png",
    )
    if model.hier_head.calibrated and trainer.objective.nodes.rows:
        tree, rows = run.forest.trees[0], trainer.objective.nodes.rows[0]
        with torch.no_grad():
            texts = model.hier_head.text_tangent(model.project_text(trainer.text_states))
            images = model.hier_head.image_tangent(model.encode_image(pipeline(pixels)))
        node_rows = torch.cat(rows).tolist()
        levels = [level for level, r in enumerate(rows) for _ in r]
        shown = [name for level in range(tree.num_levels) for name in tree.display_names(level)]
        starts = [sum(tree.sizes[:level]) for level in range(tree.num_levels)]
        edges = [
            (starts[level] + int(c), starts[level + 1] + int(p))
            for level in range(tree.depth)
            for c, p in zip(*tree.edges(level))
        ]
        plot_ball(
            texts[node_rows].cpu(),
            levels,
            shown,
            edges=edges,
            image_tangent=images.cpu(),
            image_node=labels.tolist(),
            curvature=float(model.hier_head.curvature),
            path=folder / "ball.png",
        )
        figures.append("ball.png")
    return [f"figures/{name}" for name in figures]


def _terms(logged: list[dict]) -> list[str]:
    plain = {"loss", "grad_norm", "learning_rate", "epoch", "step", "train_loss"}
    return ["loss", *sorted({k for entry in logged for k in entry} - plain)]


def _load_data(args: RunArguments, seed: int):
    if args.dataset_name == "glyphs":
        from ..data.glyphs import glyph_dataset

        count = args.max_train_samples or GLYPH_TRAIN_IMAGES
        train = glyph_dataset("train", num_images=count, seed=seed, cache_dir=_cache())
        return train, glyph_dataset("test", num_images=args.eval_samples, seed=seed, cache_dir=_cache())
    columns = {"image_column": args.image_column, "label_column": args.label_column}
    source = args.train_file or args.dataset_name
    wanted = None if args.max_train_samples is None else args.max_train_samples + args.skip_train_samples
    train = load_images(
        source,
        split=args.train_split,
        config=args.dataset_config,
        streaming=args.streaming,
        max_samples=wanted,
        **columns,
    )
    if args.skip_train_samples:
        train = train.skip(args.skip_train_samples)
    evaluation = load_images(
        args.eval_file or args.dataset_name, split=args.eval_split, config=args.dataset_config, **columns
    )
    return train, evaluation


def _forest(spec: str) -> Forest:
    if spec != "glyphs":
        return load_tree(spec)
    from ..data.glyphs import glyph_paths

    tree = LabelTree.from_paths(glyph_paths(), name="glyphs", source="hf_hierrobust", licence="Apache-2.0")
    return as_forest(tree)


def _class_set(args: RunArguments, names: list[str] | None) -> ClassSet:
    if args.class_set is not None:
        return load_class_set(args.class_set)
    if args.tree in available_class_sets():
        return load_class_set(args.tree)
    if names is None:
        raise ValueError(
            "the data set does not name its classes: give class_set (built-in name or JSON file)"
        )
    return ClassSet.from_names(
        names, name=public_name(args.dataset_name or Path(args.train_file).parent.name)
    )


def _model_path(args: RunArguments, seed: int) -> str:
    if args.model_name_or_path != "glyphs":
        return args.model_name_or_path
    from ..data.glyphs import glyph_dataset, glyph_paths
    from ..modeling.tiny_pretraining import PretrainRecipe, pretrain_glyph_clip

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
    class_set = (
        load_class_set(name) if name in available_class_sets() else ClassSet.from_names(names, name=name)
    )
    return EvaluationSet(
        name=name,
        dataset=PixelDataset(dataset),
        class_set=class_set,
        split=args.eval_split,
        label_map=class_set.index_map(names) if names is not None else None,
        num_samples=args.eval_samples,
    )
