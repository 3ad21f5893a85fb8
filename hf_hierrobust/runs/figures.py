"""The figures of a run: accuracy before and after, training curves, examples, the ball, margins by depth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path

import torch
from torch import Tensor
from transformers import logging

from ..attacks import Attack
from ..classifiers import ZeroShotClassifier, level_prompts
from ..data import PixelCollator
from ..evaluation import EvaluationSet, RobustnessRecord
from ..evaluation.record_checks import checked_attack
from ..modeling import PixelPipeline, encode_prompts
from ..naming import file_stem
from ..reports import (
    attack_label,
    plot_ball,
    plot_before_after,
    plot_curves,
    plot_depth,
    plot_examples,
    plot_transfer,
)
from ..reports.tables import attack_key
from .plans import evaluation_plan
from .run import Run

logger = logging.get_logger(__name__)

FIGURES = ("before_after.png", "training.png", "examples.png", "ball.png", "depth.png")
DRAWN_FROM = 48
"""Images that examples and ball are drawn from."""


def draw_figures(
    run: Run, log_history: Sequence[Mapping], records: Sequence[RobustnessRecord], objective: str
) -> list[str]:
    """Draw into ``output_dir/figures``; a figure that fails is left out with a warning.

    Args:
        log_history: of the training.
        records: of the trained model.

    Returns:
        The files, as paths relative to the output directory.
    """
    folder = run.output_dir / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for name in FIGURES:  # of a former report
        (folder / name).unlink(missing_ok=True)
    logged = [entry for entry in log_history if "loss" in entry]
    draw: dict[str, Callable[[Path], object]] = {
        "before_after.png": partial(plot_before_after, _main_records(records))
    }
    if len(logged) > 1:
        setting = training_setting(run, objective)
        draw["training.png"] = partial(plot_curves, log_history, setting=setting)
    draw["examples.png"] = partial(_draw_examples, run)
    if run.model.hier_head.calibrated and run.forest is not None:
        draw["ball.png"] = partial(_draw_ball, run)
    if any(record.depth for record in records):
        draw["depth.png"] = partial(plot_depth, records)
    done = []
    for name, plot in draw.items():
        try:
            plot(path=folder / name)
        except Exception as error:
            logger.warning(f"figures/{name} could not be drawn and is left out: {error!r}")
        else:
            done.append(f"figures/{name}")
    return done


def draw_transfers(records: Sequence[RobustnessRecord], folder: Path) -> list[Path]:
    """A heat map of the transfer between levels for each set of images and attack, as PNG and SVG."""
    groups: dict[tuple, list[RobustnessRecord]] = {}
    for record in records:
        if record.crafted_level is not None:
            whose = record.model, record.model_hash, record.tree_hash, record.seed
            images = record.dataset, record.split, record.sample_ids["sha256"]
            groups.setdefault((*images, *whose, attack_key(record)), []).append(record)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, ((dataset, *_), found) in enumerate(groups.items(), start=1):
        stem = folder / f"transfer-{file_stem(dataset)}-{number}"
        plot_transfer(found, stem)
        files += [stem.with_name(f"{stem.name}{suffix}") for suffix in (".png", ".svg")]
    return files


def training_setting(run: Run, objective: str) -> str:
    """Model, data, objective, training attack and space, in a line."""
    facts = getattr(run.model.config, "hier_robust", None) or {}
    attack = "on clean images"
    if facts.get("attack"):
        constants = checked_attack(facts["attack"])
        attack = f"training attack {attack_label(constants)}; space {constants['space']}"
    return f"{run.public_name} on {run.args.train_name} ({run.args.train_split}); {objective}; {attack}"


def spread(labels: Sequence[int], count: int) -> list[int]:
    """Positions of up to ``count`` images that go round the classes, each in the order of the data."""
    classes: dict[int, list[int]] = {}
    for position, label in enumerate(labels):
        classes.setdefault(int(label), []).append(position)
    rounds = chain.from_iterable(zip_longest(*classes.values()))
    return [position for position in rounds if position is not None][:count]


def _main_records(records: Sequence[RobustnessRecord]) -> list[RobustnessRecord]:
    """What fits into one bar chart: the main data set at the largest budget, without joined classifiers."""
    strongest = max(r.attack["eps"] for r in records)
    return [
        r
        for r in records
        if r.dataset == records[0].dataset
        and r.attack["eps"] == strongest
        and r.direct
        and "path" not in r.classifier
    ]


def _some_images(run: Run, data: EvaluationSet) -> tuple[Tensor, Tensor]:
    """Pixels (B, 3, H, W) and labels (B,) of images of as many classes as there are."""
    rows = [data.rows[i] for i in spread([data.images.labels[row] for row in data.rows], DRAWN_FROM)]
    collator = PixelCollator(run.processor.image_processor, run.training_args.threat.space)
    batch = collator([data.images[row] for row in rows])
    return batch["pixels"].to(run.model.device), batch["labels"].to(run.model.device)


def _strongest(run: Run) -> Attack:
    """The first attack of the largest budget that the run evaluates."""
    budgets = evaluation_plan(run.args, run.training_args.threat).budgets
    return max((attacks[0] for attacks in budgets), key=lambda attack: attack.threat.eps)


def _draw_examples(run: Run, path: Path) -> None:
    """Four images that the attack breaks and two that resist it, as far as there are such."""
    data, attack = run.eval_sets[0], _strongest(run)
    names, template = run.class_set.class_names, run.training_args.template
    prompts = [template.replace("{}", name) for name in names]
    states = encode_prompts(run.model, run.processor.tokenizer, prompts)
    pipeline = PixelPipeline(run.processor.image_processor, attack.threat.space)
    classifier = ZeroShotClassifier(run.model, pipeline, states, prompts=prompts)
    pixels, labels = _some_images(run, data)
    result = attack(classifier, pixels, labels)
    with torch.no_grad():
        before, after = (classifier(x).argmax(1).tolist() for x in (pixels, result.adversarial))
    broken = (result.clean_correct & ~result.robust_correct).nonzero()[:4, 0].tolist()
    resisting = result.robust_correct.nonzero()[: 6 - len(broken), 0].tolist()
    shown = broken + resisting or list(range(min(6, len(labels))))
    counts = {"that it breaks": len(broken), "that resist": len(resisting)}
    chosen = "the first " + " and ".join(f"{count} {what}" for what, count in counts.items() if count)
    if not broken + resisting:
        chosen = "the first, as none is right when clean"
    constants = checked_attack(attack.describe())
    classes = len(set(labels.tolist()))
    plot_examples(
        pixels[shown].cpu(),
        result.adversarial[shown].cpu(),
        [names[before[i]] for i in shown],
        [names[after[i]] for i in shown],
        [names[labels[i]] for i in shown],
        path,
        setting=f"{run.public_name} (cosine) on {data.name} ({data.split}); {attack_label(constants)}; space "
        f"{constants['space']}; {chosen}, of {len(labels)} images drawn round {classes} classes",
    )


def _draw_ball(run: Run, path: Path) -> None:
    """The first tree's text nodes and some images."""
    model, tree, data = run.model, run.forest.trees[0], run.eval_sets[0]
    template = run.training_args.template
    nodes: dict[str, tuple[int, str, str]] = {}  # level, name and prompt, where padding has not repeated it
    for level, prompts in enumerate(level_prompts(run.class_set, tree, template)):
        for key, name, (prompt,) in zip(tree.levels[level], tree.display_names(level), prompts):
            nodes.setdefault(key, (level, name, prompt))
    levels, names, prompts = map(list, zip(*nodes.values()))
    place = {key: number for number, key in enumerate(nodes)}
    pixels, labels = _some_images(run, data)
    pipeline = PixelPipeline(run.processor.image_processor, run.training_args.threat.space)
    with torch.no_grad():
        states = encode_prompts(model, run.processor.tokenizer, prompts)
        texts = model.hier_head.text_tangent(model.project_text(states), torch.tensor(levels))
        images = model.hier_head.image_tangent(model.encode_image(pipeline(pixels)))
    plot_ball(
        texts.cpu(),
        levels,
        names,
        edges=[
            (place[tree.levels[level][child]], place[tree.levels[level + 1][parent]])
            for level in range(tree.depth)
            for child, parent in zip(*tree.edges(level))
        ],
        image_tangent=images.cpu(),
        image_node=labels.tolist(),
        curvature=float(model.hier_head.curvature),
        path=path,
        setting=f"{run.public_name}; prompts of tree {tree.name}; {len(labels)} clean images of {data.name} "
        f"({data.split}), space {run.training_args.threat.space}, drawn round the classes",
    )
