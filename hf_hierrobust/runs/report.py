"""The last stage of a run: results, trees, figures and the card."""

from __future__ import annotations

import json

from ..evaluation import RobustnessRecord, save_records, with_base
from ..files import write_atomically
from ..naming import file_stem
from ..training import RobustCLIPTrainer
from .figures import draw_figures
from .run import Run


def report(
    run: Run, trainer: RobustCLIPTrainer, base: list[RobustnessRecord], records: list[RobustnessRecord]
) -> list[RobustnessRecord]:
    """Write ``results.json``, trees, figures and the card; return the records with their base."""
    records = with_base(records, base)
    save_records(run.output_dir / "results.json", records)
    for tree in run.forest or ():
        name = f"{file_stem(tree.name)}.tree.json"
        write_atomically(run.output_dir / name, json.dumps(tree.to_json(), indent=1))
    figures = draw_figures(run, trainer, records) if run.args.figures else []
    trainer.describe(records, figures, datasets=[run.args.train_name])
    trainer.create_model_card()
    return records
