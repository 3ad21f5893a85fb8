"""The last stage of a run: trees, figures and the card, from records that are already written."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..evaluation import RobustnessRecord
from ..files import write_atomically
from ..naming import file_stem
from ..training import RobustCLIPTrainer
from .figures import FIGURES, draw_figures
from .run import Run


def report(run: Run, trainer: RobustCLIPTrainer, records: Sequence[RobustnessRecord]) -> list[str]:
    """Write trees, figures and the card to the output directory.

    Args:
        records: of the trained model, the base's beside them.

    Returns:
        Names of the trees and figures, relative to the output directory.
    """
    names = tree_files(run)
    for name, tree in names.items():
        write_atomically(run.output_dir / name, json.dumps(tree.to_json(), indent=1))
    figures = draw_figures(run, trainer, records) if run.args.figures else []
    trainer.describe(records, figures, datasets=[run.args.train_name])
    trainer.create_model_card()
    return [*names, *figures]


def planned_files(run: Run) -> list[str]:
    """All that `report` may write beside the card, so that a torn one is known as the run's own."""
    return [*tree_files(run), *(f"figures/{name}" for name in FIGURES if run.args.figures)]


def tree_files(run: Run) -> dict:
    """The run's trees by the name of their file."""
    return {f"{file_stem(tree.name)}.tree.json": tree for tree in run.forest or ()}
