"""A whole training run: load, measure the base, train, measure again, report, share."""

from __future__ import annotations

from contextlib import nullcontext

from ..adapters import visual_prompt_off
from ..evaluation import RobustnessRecord
from ..progress import say
from ..training import RobustCLIPTrainer, RobustTrainingArguments, prepare_output_dir
from .arguments import RunArguments
from .evaluate import evaluate_run
from .load import load_run
from .report import check_report, report
from .run import Run


def train(args: RunArguments, training_args: RobustTrainingArguments) -> list[RobustnessRecord]:
    """Train a robust model, measure it beside its base, and write everything down in ``output_dir``.

    Returns:
        What was measured, the base beside it; empty on processes other than the first.

    Raises:
        OutputDirError: ``output_dir`` holds another run and the arguments say neither resume nor overwrite.
    """
    prepare_output_dir(  # the trainer asks again; here nothing has been loaded yet
        training_args.output_dir,
        resume=training_args.resume_from_checkpoint,
        overwrite=training_args.overwrite_output_dir,
    )
    run = load_run(args, training_args)
    # The trainer comes before any measurement, so that whatever does not fit together fails now.
    trainer = build_trainer(run)
    check_report(run, trainer)
    # A new visual prompt is noise that the base does not have.
    prompted = training_args.visual_prompt_tokens or training_args.visual_prompt_border
    if args.eval_base:
        say("base evaluation: the model before training")
    with visual_prompt_off(run.model) if prompted else nullcontext():
        base = evaluate_run(run, run.model, args.model_name_or_path, "none") if args.eval_base else []
    say(f"training: {trainer.objective.name} at {training_args.threat}")
    trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
    trainer.save_model()
    trainer.save_state()
    records = []
    if trainer.is_world_process_zero():
        say("evaluation: the trained model on the same images")
        records = evaluate_run(run, run.model, training_args.output_dir, trainer.objective.name)
        say("report: figures and card")
        records = report(run, trainer, base, records)
    if training_args.push_to_hub:
        trainer.push_to_hub()
    say(f"done: {training_args.output_dir}")
    return records


def build_trainer(run: Run) -> RobustCLIPTrainer:
    """The trainer of a run."""
    return RobustCLIPTrainer(
        run.model,
        run.training_args,
        processing_class=run.processor,
        class_set=run.class_set,
        tree=run.forest,
        train_dataset=run.train_dataset,
        eval_dataset=run.eval_sets[0].dataset,
    )
