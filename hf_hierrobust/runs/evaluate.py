"""Measuring a model: the evaluation stage of a run."""

from __future__ import annotations

from ..evaluation import RobustnessRecord, evaluate_model
from ..modeling import RobustDualEncoder
from .run import Run


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
        bf16_search=run.args.searches_in_bf16,
        seed=run.training_args.seed,
        progress=not run.training_args.disable_tqdm,
        stage="base" if objective == "none" else "trained",
    )
