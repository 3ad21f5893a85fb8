"""The measurements as the Hub's leaderboards read them, beside the card: `.eval_results/robustness.yaml`."""

from __future__ import annotations

from collections.abc import Sequence

import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

from ..evaluation.records import RobustnessRecord
from ..naming import file_stem
from ..reports.markdown import plain
from ..reports.tables import attack_key, attack_names, attack_short, scored_by
from .metadata import hub_name


def eval_results(records: Sequence[RobustnessRecord], repo_id: str | None = None) -> str:
    """YAML with a clean and a robust accuracy, as fractions, for every record of a data set on the Hub.

    The Hub knows data sets by their ids only: of local ones it is told nothing. "" if that leaves nothing.

    Args:
        repo_id: of the model, whose ``results.json`` is named as the source.
    """
    labels, entries = attack_names(records, attack_short), []
    source = {}
    if repo_id and "/" in repo_id:
        url = f"https://huggingface.co/{repo_id}/blob/main/results.json"
        source = {"source_url": url, "source_name": "results.json"}
    for record in records:
        name, is_hub = hub_name(record.dataset)
        if not is_hub:
            continue
        attack = labels[attack_key(record)]
        asked = f"{record.level_name} ({record.num_classes} classes); {scored_by(record)}"
        where = f"split {record.split}; {record.num_samples} images; seed {record.seed}"
        tasks = {
            "clean": (record.clean_accuracy, f"clean accuracy; {asked}; {where}"),
            "robust": (record.robust_accuracy, f"robust accuracy; {asked}; {attack}; {where}"),
        }
        for kind, (value, notes) in tasks.items():
            task = f"zero_shot_{kind}_{file_stem(plain(record.level_name))}"
            entries.append(
                EvalResultEntry(
                    dataset_id=name,
                    task_id=task,
                    value=value,
                    date=record.created or None,
                    notes=plain(notes),
                    **source,
                )
            )
    if not entries:
        return ""
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True)
