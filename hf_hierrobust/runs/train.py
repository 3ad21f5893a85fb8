"""A whole training run: load, measure the base, train, measure again, report, share; killed, it goes on."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path

from transformers import logging

from ..adapters import visual_prompt_off
from ..adapters.fingerprints import weights_hash
from ..digests import digest_of
from ..evaluation import (
    EvaluationState,
    RobustnessRecord,
    Shards,
    load_records,
    save_records,
    with_base,
)
from ..evaluation.identity import model_facts, plan_facts, run_facts
from ..progress import say
from ..training import OutputDirError, RobustCLIPTrainer, RobustTrainingArguments, prepare_output_dir
from ..training.argument_checks import check_writable
from ..training.leftovers import WEIGHTS, model_files
from ..training.run_state import RunState
from ..training.settings import data_facts
from ..training.starting import check_can_train
from .arguments import RunArguments
from .drift import measure_drift
from .evaluate import STAGES, evaluate_run
from .load import load_run
from .plans import evaluation_plan
from .report import check_report, describe, planned_files, report
from .run import Run

logger = logging.get_logger(__name__)

BASE_FILE, RESULTS_FILE = "base.json", "results.json"
_NOT_MEASURED = frozenset(
    {"figures", "eval_base", "state_dir", "card_license", "card_base_model", "card_dataset"}
)


def train(args: RunArguments, training_args: RobustTrainingArguments) -> list[RobustnessRecord]:
    """Train a robust model, measure it beside its base, and write everything down in ``output_dir``.

    Several processes share the images of the evaluations too; the first one writes. With
    ``resume_from_checkpoint`` a run that was killed goes on where it stopped, whatever it was doing:
    ``run.json`` there says which stages are finished and under which settings, and each stage's files are
    written as soon as they exist. What is there and still fits is not trained or measured again.

    Returns:
        What was measured, the base beside it; empty on processes other than the first.

    Raises:
        OutputDirError: ``output_dir`` holds another run and the arguments say neither resume nor overwrite.
        ResumeError: the run there cannot go on, or was made under other settings.
        NothingTrainedError: no step would be made, or none moved a weight.
        OSError: ``output_dir`` cannot be written to.
    """
    check_writable(training_args.output_dir)
    resume = training_args.resume_from_checkpoint
    prepare_output_dir(  # the trainer asks again; here nothing has been loaded yet
        training_args.output_dir, resume=resume, overwrite=training_args.overwrite_output_dir
    )
    _check_state(args, training_args)
    run = load_run(args, training_args)
    check_can_train(training_args, run.model, run.train_dataset)  # before Trainer makes the directory
    # The trainer comes before any measurement, so that whatever does not fit together fails now.
    trainer = build_trainer(run)
    check_report(run, trainer)
    state, shards = trainer.begin(resume).state, Shards.joined()
    base = _measure_base(run, state, shards) if args.eval_base else []
    say(f"training: {trainer.objective.name} at {training_args.threat}")
    trainer.train()
    if not state.reached("trained"):
        if trainer.is_world_process_zero():
            state.announce(run.output_dir, [WEIGHTS])  # until they are known to be whole, written again
        trainer.save_model(_internal_call=True)  # pushed is what was measured, at the end
        trainer.save_state()
        if trainer.is_world_process_zero():
            state.weights = model_files(run.output_dir)
            state.finish(run.output_dir, state.weights, "trained")
    records = _measure_trained(run, trainer, state, base, shards)
    if trainer.is_world_process_zero():
        if not state.reached("reported"):
            say("report: figures and card")
            state.announce(run.output_dir, planned_files(run))
            state.finish(run.output_dir, report(run, trainer, records), "reported")
        else:
            describe(run, trainer, records)
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


def _check_state(args: RunArguments, training_args: RobustTrainingArguments) -> None:
    """A new run starts without verdicts: those of another one would be refused after hours of training.

    Raises:
        OutputDirError: ``state_dir`` holds some.
    """
    for folder in (Path(args.state_dir) / stage for stage in STAGES) if args.state_dir is not None else ():
        if not EvaluationState.is_in(folder) or training_args.resume_from_checkpoint:
            continue
        if not training_args.overwrite_output_dir:
            raise OutputDirError(
                f"state_dir={args.state_dir!r} already holds verdicts of a run: --resume_from_checkpoint "
                "true goes on from them, --overwrite_output_dir true starts anew, or choose another directory"
            )
        EvaluationState.clear(folder)


def _measure_base(run: Run, state: RunState, shards: Shards) -> list[RobustnessRecord]:
    what = _what_is_measured(run, state.settings["base_weights"])
    if (found := _measured(run, state, "base", BASE_FILE, what, shards)) is not None:
        return found
    say("base evaluation: the model before training")
    training_args = run.training_args
    # A new visual prompt is noise that the base does not have.
    prompted = training_args.visual_prompt_tokens or training_args.visual_prompt_border
    with visual_prompt_off(run.model) if prompted else nullcontext():
        records = evaluate_run(run, run.model, run.args.model_name_or_path, "none", shards=shards)
    if shards.rank == 0:
        save_records(run.output_dir / BASE_FILE, records)
        state.measured["base"] = what
        state.finish(run.output_dir, [BASE_FILE])
    return records


def _measure_trained(
    run: Run, trainer: RobustCLIPTrainer, state: RunState, base: list[RobustnessRecord], shards: Shards
) -> list[RobustnessRecord]:
    """What was measured; empty on processes other than the first."""
    what = _what_is_measured(run, weights_hash(run.model), bool(base))
    ready = state.reached("measured")
    if (found := _measured(run, state, "trained", RESULTS_FILE, what, shards, ready)) is not None:
        return found
    say("evaluation: the trained model on the same images")
    name = trainer.objective.name
    records = evaluate_run(run, run.model, run.training_args.output_dir, name, shards=shards)
    if shards.rank > 0:
        return []
    records = with_base(records, base)
    if run.args.drift_samples and "cosine" in (run.args.classifiers or ("cosine",)):
        say("drift: the tower's patch tokens beside the base's")
        records = measure_drift(run, records)
    save_records(run.output_dir / RESULTS_FILE, records)
    state.measured["trained"] = what
    state.finish(run.output_dir, [RESULTS_FILE], "measured")
    return records


def _measured(
    run: Run, state: RunState, which: str, file: str, what: str, shards: Shards, ready: bool = True
) -> list[RobustnessRecord] | None:
    """Records of an earlier, killed start of this run, if they are whole and measured the same.

    The first process decides for all, and reads them; on the others there are none.
    """
    fits = ready and state.measured.get(which) == what and not state.fault_in(run.output_dir, [file])
    if not shards.first_says(fits):
        return None
    if shards.rank > 0:
        return []
    logger.warning(f"{run.output_dir / file} is there and fits: the {which} model is not measured again")
    return load_records(run.output_dir / file)


def _what_is_measured(run: Run, weights: str, *more) -> str:
    """Digest of all that decides the records of a model with these weights."""
    args, training_args = run.args, run.training_args
    arguments = {f.name: getattr(args, f.name) for f in fields(args) if f.name not in _NOT_MEASURED}
    threat, template = training_args.threat, training_args.template
    how = [
        str(threat),
        threat.space,
        template,
        run_facts(training_args.seed, args.eval_batch, training_args.device, args.searches_in_bf16),
        plan_facts(evaluation_plan(args, threat)),
    ]
    sets = [
        [
            [data.name, data.split, data.rows, data.class_set.class_names, data.tree and data.tree.hash],
            model_facts(run.model, run.processor, data.class_set, data.tree),
            data_facts(data.dataset),
        ]
        for data in run.eval_sets
    ]
    return digest_of([weights, arguments, how, sets, more])
