"""Train a robust model, measure it beside its base, and write everything down."""

from __future__ import annotations

from contextlib import nullcontext

from ..adapters import visual_prompt_off
from ..reports import records_table
from ..runs.arguments import RunArguments
from ..runs.report import report
from ..runs.stages import build_trainer, evaluate_run, load_run
from ..training import RobustTrainingArguments, prepare_output_dir
from .config import parse_with_config


def main(argv: list[str] | None = None, **defaults) -> None:
    """One run from flags or a YAML config to a checkpoint, ``results.json``, figures and a card.

    Args:
        argv: command line; None reads ``sys.argv``.
        defaults: options that the calling script presets, weaker than config and flags.
    """
    args, training_args = parse_with_config((RunArguments, RobustTrainingArguments), argv, defaults=defaults)
    prepare_output_dir(  # the trainer asks again; here nothing has been loaded yet
        training_args.output_dir,
        resume=training_args.resume_from_checkpoint,
        overwrite=training_args.overwrite_output_dir,
    )
    run = load_run(args, training_args)
    # The trainer comes before any measurement, so that whatever does not fit together fails now.
    trainer = build_trainer(run)
    # A new visual prompt is noise that the base does not have.
    prompted = training_args.visual_prompt_tokens or training_args.visual_prompt_border
    with visual_prompt_off(run.model) if prompted else nullcontext():
        base = evaluate_run(run, run.model, args.model_name_or_path, "none") if args.eval_base else []
    trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
    trainer.save_model()
    trainer.save_state()
    if trainer.is_world_process_zero():
        records = evaluate_run(run, run.model, training_args.output_dir, trainer.objective.name)
        records = report(run, trainer, base, records)
        print(records_table(records))
    if training_args.push_to_hub:
        trainer.push_to_hub()
