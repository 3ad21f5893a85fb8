"""The last stage of a run: trees, figures and the card; and what can be checked of it before."""

from __future__ import annotations

import json
from collections.abc import Sequence

from transformers import logging

from ..evaluation import RobustnessRecord
from ..files import write_atomically
from ..naming import file_stem
from ..reports.figure_io import undrawable
from ..training import RobustCLIPTrainer
from .figures import FIGURES, draw_figures
from .run import Run

logger = logging.get_logger(__name__)


def check_report(run: Run, trainer: RobustCLIPTrainer) -> None:
    """Find what would fail or disappoint only after the training: call it before.

    The card is rendered once without its measurements, evaluation images that no base evaluation will read
    are decoded, and names that the figures' fonts lack are reported.

    Raises:
        ValueError: a fact that no card can state, or an unreadable image; it names the field or file.
    """
    trainer.describe(**card_facts_of(run))
    if not run.args.eval_base:
        for data in run.eval_sets:
            for row in data.rows:
                data.images[row]
    if run.args.figures:
        names = list(run.class_set.class_names)
        for tree in run.forest or ():
            names += [name for level in range(1, tree.num_levels) for name in tree.display_names(level)]
        if missing := undrawable(names):
            logger.warning(
                f"{len(missing)} class names, such as {missing[0]!r}, hold characters that no font of the "
                "figures has: they are drawn as boxes"
            )


def report(
    run: Run,
    trainer: RobustCLIPTrainer,
    records: Sequence[RobustnessRecord],
    warnings: Sequence[str] = (),
) -> list[str]:
    """Write trees, figures and the card to the output directory.

    Args:
        records: of the trained model, the base's beside them; they are written already.
        warnings: sentences about this run that a reader of the card must not miss.

    Returns:
        Names of the trees and figures, relative to the output directory.
    """
    names = tree_files(run)
    for name, tree in names.items():
        write_atomically(run.output_dir / name, json.dumps(tree.to_json(), indent=1, ensure_ascii=False))
    figures = []
    if run.args.figures:
        figures = draw_figures(run, trainer.state.log_history, records, trainer.objective.name)
    describe(run, trainer, records, warnings)
    return [*names, *figures]


def describe(
    run: Run,
    trainer: RobustCLIPTrainer,
    records: Sequence[RobustnessRecord],
    warnings: Sequence[str] = (),
) -> None:
    """Write the card, with the figures that are there; cards of later pushes say the same."""
    drawn = [f"figures/{name}" for name in FIGURES if run.args.figures]
    figures = [name for name in drawn if (run.output_dir / name).is_file()]
    trainer.describe(**card_facts_of(run), records=records, figures=figures, warnings=warnings)
    trainer.create_model_card()


def planned_files(run: Run) -> list[str]:
    """All that `report` may write beside the card, so that a torn one is known as the run's own."""
    return [*tree_files(run), *(f"figures/{name}" for name in FIGURES if run.args.figures)]


def tree_files(run: Run) -> dict:
    """The run's trees by the name of their file."""
    return {f"{file_stem(tree.name)}.tree.json": tree for tree in run.forest or ()}


def card_facts_of(run: Run) -> dict:
    """What a card says of a run beside its training and its measurements."""
    args = run.args
    return {
        "datasets": [args.card_dataset or args.train_name],
        "licence": args.card_license,
        "class_names": run.class_set.class_names,
    }
