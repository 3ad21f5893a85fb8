"""Measure a checkpoint: clean and robust accuracy of every classifier it offers, as records."""

from __future__ import annotations

from pathlib import Path

from ..evaluation import save_records
from ..reports import records_table
from ..runs.arguments import RunArguments
from ..runs.stages import evaluate_run, load_run
from ..training import OutputDirError, RobustTrainingArguments
from .config import parse_with_config


def main(argv: list[str] | None = None) -> None:
    """Evaluate ``model_name_or_path`` on the evaluation sets and write ``output_dir/results.json``.

    Raises:
        OutputDirError: ``output_dir`` holds results already, e.g. a run's, with its base beside it.
    """
    args, training_args = parse_with_config((RunArguments, RobustTrainingArguments), argv)
    target = Path(training_args.output_dir) / "results.json"
    if target.exists() and not training_args.overwrite_output_dir:
        raise OutputDirError(
            f"output_dir={training_args.output_dir!r} already holds results.json: "
            "--overwrite_output_dir true replaces it, or choose another directory"
        )
    run = load_run(args, training_args, training=False)
    facts = getattr(run.model.config, "hier_robust", None) or {}
    records = evaluate_run(run, run.model, args.model_name_or_path, facts.get("objective", "none"))
    target.parent.mkdir(parents=True, exist_ok=True)
    save_records(target, records)
    print(records_table(records))
