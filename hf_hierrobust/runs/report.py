"""The last stage of a run: results, trees, figures and the card; and what can be checked of it before."""

from __future__ import annotations

import json
from collections.abc import Sequence

from transformers import logging

from ..evaluation import RobustnessRecord, save_records, with_base
from ..files import write_atomically
from ..naming import file_stem
from ..reports.figure_io import undrawable
from ..training import RobustCLIPTrainer
from .figures import draw_figures
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
    base: list[RobustnessRecord],
    records: list[RobustnessRecord],
    warnings: Sequence[str] = (),
) -> list[RobustnessRecord]:
    """Write ``results.json``, trees, figures and the card; return the records with their base.

    Args:
        warnings: sentences about this run that a reader of the card must not miss.
    """
    records = with_base(records, base)
    save_records(run.output_dir / "results.json", records)
    for tree in run.forest or ():
        name = f"{file_stem(tree.name)}.tree.json"
        write_atomically(run.output_dir / name, json.dumps(tree.to_json(), indent=1, ensure_ascii=False))
    figures = []
    if run.args.figures:
        figures = draw_figures(run, trainer.state.log_history, records, trainer.objective.name)
    facts = card_facts_of(run)
    facts["warnings"] += warnings
    trainer.describe(**facts, records=records, figures=figures)
    trainer.create_model_card()
    return records


def card_facts_of(run: Run) -> dict:
    """What a card says of a run beside its training and its measurements."""
    args = run.args
    shared = [data for data in run.eval_sets if data.shared_with_training]
    return {
        "datasets": [args.card_dataset or args.train_name],
        "licence": args.card_license,
        "class_names": run.class_set.class_names,
        "warnings": [
            f"{data.shared_with_training} of the evaluated images of {data.name} were trained on."
            for data in shared
        ],
    }
