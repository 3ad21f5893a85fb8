"""``evaluate``: clean and robust accuracy of every classifier that a checkpoint offers, as records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .arguments import build_arguments
from .main import run_command


def main(argv: Sequence[str] | None = None, **defaults) -> None:
    """The command, for scripts; arguments and errors as for `cli.train.main`."""
    run_command("evaluate", argv, defaults)


def run(values: Mapping) -> None:
    """Evaluate ``model_name_or_path`` on the evaluation sets and write ``output_dir/results.json``.

    Raises:
        OutputDirError: ``output_dir`` holds results already, e.g. a run's, with its base beside it.
    """
    from ..evaluation import save_records
    from ..reports import depth_table, records_table
    from ..runs.evaluate import evaluate_run
    from ..runs.load import load_run
    from ..training import OutputDirError

    args, training_args = build_arguments(values)
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
    print("\n".join(filter(None, (records_table(records), depth_table(records)))))
