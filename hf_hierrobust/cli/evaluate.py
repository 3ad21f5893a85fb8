"""``evaluate``: clean and robust accuracy of every classifier that a checkpoint offers, as records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..progress import say
from .arguments import build_arguments
from .main import run_command


def main(argv: Sequence[str] | None = None, **defaults) -> None:
    """The command, for scripts; arguments and errors as for `cli.train.main`."""
    run_command("evaluate", argv, defaults)


def run(values: Mapping) -> None:
    """Evaluate ``model_name_or_path`` on the evaluation sets and write ``output_dir/results.json``.

    Killed, the same command goes on from the verdicts in ``state_dir``; several processes share the images.

    Raises:
        OutputDirError: ``output_dir`` holds results already, e.g. a run's, with its base beside it.
        StateError: ``state_dir`` holds the verdicts of another evaluation.
    """
    from ..evaluation import EvaluationState, Shards, save_records
    from ..reports import depth_table, masking_sentence, records_table
    from ..runs.drift import measure_drift
    from ..runs.evaluate import evaluate_run
    from ..runs.figures import draw_transfers
    from ..runs.load import load_run
    from ..training import OutputDirError
    from ..training.launch import missing_processes

    args, training_args = build_arguments(values)
    target = Path(training_args.output_dir) / "results.json"
    state = Path(args.state_dir or target.with_name("state"))
    replace = training_args.overwrite_output_dir
    if target.exists() and not replace and not EvaluationState.is_in(state):
        raise OutputDirError(
            f"output_dir={training_args.output_dir!r} already holds results.json: "
            "--overwrite_output_dir true replaces it, or choose another directory"
        )
    if args.retrieval:
        _retrieve(args, training_args)
        return
    if (missing := missing_processes(training_args.world_size)) is not None:
        say(missing)
    run = load_run(args, training_args, training=False)
    facts = getattr(run.model.config, "hier_robust", None) or {}
    shards = Shards.joined()
    if target.exists() and replace and shards.rank == 0:
        target.unlink()  # first: without it, verdicts are gone on from
        EvaluationState.clear(state)
    records = evaluate_run(
        run,
        run.model,
        args.model_name_or_path,
        facts.get("objective", "none"),
        state=state,
        shards=shards,
        strict=True,
    )
    if shards.rank == 0 and args.drift_base is not None:
        records = measure_drift(run, records)
    if shards.rank == 0:
        target.parent.mkdir(parents=True, exist_ok=True)
        save_records(target, records)
        if args.figures and args.transfer:
            draw_transfers(records, target.parent / "figures")
        parts = (records_table(records), depth_table(records), masking_sentence(records))
        print("\n".join(filter(None, parts)))


def _retrieve(args, training_args) -> None:
    """Write ``output_dir/retrieval.json`` and print its table."""
    from ..evaluation.retrieval_records import save_retrieval
    from ..reports.retrieval import retrieval_table
    from ..runs.retrieval import retrieval_run
    from ..training import OutputDirError

    target = Path(training_args.output_dir) / "retrieval.json"
    if target.exists() and not training_args.overwrite_output_dir:
        raise OutputDirError(
            f"output_dir={training_args.output_dir!r} already holds retrieval.json: "
            "--overwrite_output_dir true replaces it, or choose another directory"
        )
    records = retrieval_run(args, training_args)
    save_retrieval(target, records)
    print(retrieval_table(records))
