"""Measure a checkpoint: clean and robust accuracy of every classifier it offers, as records."""

from __future__ import annotations

from pathlib import Path

from ..evaluation import records_table, save_records
from ..training import RobustTrainingArguments
from .arguments import RunArguments
from .config import parse_with_config
from .stages import evaluate_run, load_run


def main(argv: list[str] | None = None) -> None:
    """Evaluate ``model_name_or_path`` on the evaluation sets and write ``output_dir/results.json``."""
    args, training_args = parse_with_config((RunArguments, RobustTrainingArguments), argv)
    run = load_run(args, training_args, training=False)
    facts = getattr(run.model.config, "hier_robust", None) or {}
    records = evaluate_run(run, run.model, args.model_name_or_path, facts.get("objective", "none"))
    Path(training_args.output_dir).mkdir(parents=True, exist_ok=True)
    save_records(run.output_dir / "results.json", records)
    print(records_table(records))
