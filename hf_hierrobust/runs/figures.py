"""The figures of a run: accuracy before and after, training curves, examples, embeddings in the ball."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ..attacks import PGD
from ..classifiers import ZeroShotClassifier
from ..evaluation import RobustnessRecord
from ..modeling import PixelPipeline, encode_prompts
from ..training import RobustCLIPTrainer
from .run import Run


def draw_figures(run: Run, trainer: RobustCLIPTrainer, records: list[RobustnessRecord]) -> list[str]:
    """Draw into ``output_dir/figures``; returns the files as paths relative to the output directory."""
    from ..reports.plots import plot_before_after, plot_curves

    folder = run.output_dir / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    figures = ["before_after.png", "examples.png"]
    plot_before_after(_main_records(records), folder / "before_after.png")
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    if len(logged) > 1:
        plot_curves(trainer.state.log_history, folder / "training.png", terms=_terms(logged))
        figures.insert(1, "training.png")
    batch = next(iter(run.eval_sets[0].loader(run.processor, run.training_args.threat.space, 64)))
    device = run.model.device
    pixels, labels = batch["pixels"].to(device), batch["labels"].to(device)
    _draw_examples(run, pixels, labels, folder / "examples.png")
    if run.model.hier_head.calibrated and trainer.objective.nodes.rows:
        _draw_ball(run, trainer, pixels, labels, folder / "ball.png")
        figures.append("ball.png")
    return [f"figures/{name}" for name in figures]


def _main_records(records: list[RobustnessRecord]) -> list[RobustnessRecord]:
    """What fits into one bar chart: the main data set at the largest budget, without joined classifiers."""
    strongest = max(r.attack["eps"] for r in records)
    return [
        r
        for r in records
        if r.dataset == records[0].dataset and r.attack["eps"] == strongest and "path" not in r.classifier
    ]


def _terms(logged: list[dict]) -> list[str]:
    plain = {"loss", "grad_norm", "learning_rate", "epoch", "step", "train_loss"}
    return ["loss", *sorted({key for entry in logged for key in entry} - plain)]


def _draw_examples(run: Run, pixels: Tensor, labels: Tensor, path: Path) -> None:
    """Four images that the attack breaks and two that resist it, as far as there are such."""
    from ..reports.plots import plot_examples

    names = run.class_set.class_names
    prompts = [run.training_args.template.replace("{}", name) for name in names]
    states = encode_prompts(run.model, run.processor.tokenizer, prompts)
    pipeline = PixelPipeline(run.processor.image_processor, run.training_args.threat.space)
    classifier = ZeroShotClassifier(run.model, pipeline, states, prompts=prompts)
    result = PGD(**asdict(run.training_args.threat))(classifier, pixels, labels)
    with torch.no_grad():
        before, after = (classifier(x).argmax(1).tolist() for x in (pixels, result.adversarial))
    broken = (result.clean_correct & ~result.robust_correct).nonzero()[:4, 0].tolist()
    resisting = result.robust_correct.nonzero()[: 6 - len(broken), 0].tolist()
    shown = broken + resisting or list(range(min(6, len(labels))))
    plot_examples(
        pixels[shown].cpu(),
        result.adversarial[shown].cpu(),
        [names[before[i]] for i in shown],
        [names[after[i]] for i in shown],
        [names[labels[i]] for i in shown],
        path,
    )


def _draw_ball(run: Run, trainer: RobustCLIPTrainer, pixels: Tensor, labels: Tensor, path: Path) -> None:
    """The first tree's text nodes and the images of one batch."""
    from ..reports.plots import plot_ball

    model, tree, rows = run.model, run.forest.trees[0], trainer.objective.nodes.rows[0]
    pipeline = PixelPipeline(run.processor.image_processor, run.training_args.threat.space)
    with torch.no_grad():
        states = trainer.step.views.text.current_states(model)
        texts = model.hier_head.text_tangent(model.project_text(states))
        images = model.hier_head.image_tangent(model.encode_image(pipeline(pixels)))
    starts = [sum(tree.sizes[:level]) for level in range(tree.num_levels)]
    plot_ball(
        texts[torch.cat(rows).tolist()].cpu(),
        [level for level, nodes in enumerate(rows) for _ in nodes],
        [name for level in range(tree.num_levels) for name in tree.display_names(level)],
        edges=[
            (starts[level] + int(child), starts[level + 1] + int(parent))
            for level in range(tree.depth)
            for child, parent in zip(*tree.edges(level))
        ],
        image_tangent=images.cpu(),
        image_node=labels.tolist(),
        curvature=float(model.hier_head.curvature),
        path=path,
    )
