"""The front matter of a card: what the Hub reads, with every measurement in its model-index."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.utils import HFValidationError, validate_repo_id

from ..evaluation.records import RobustnessRecord
from ..naming import MACHINE_PATH, public_name
from ..reports.markdown import plain
from ..reports.tables import attack_key, attack_names, attack_short, scored_by
from .facts import CardFacts

TASK = "zero-shot-image-classification"


def card_metadata(facts: CardFacts, name: str, base_model: str | None, datasets: list[str]) -> ModelCardData:
    """Front matter of a card.

    Args:
        name: public name of the model.
        base_model, datasets: ids on the Hub only.
    """
    labels = attack_names(facts.records, attack_short)
    results = [r for record in facts.records for r in _eval_results(record, labels[attack_key(record)])]
    tags = ["hf_hierrobust", "adversarial-robustness", facts.objective, *facts.tags]
    return ModelCardData(
        language=facts.language,
        license=facts.licence,
        library_name="hf_hierrobust" if facts.visual_prompt else "transformers",
        pipeline_tag=TASK,
        base_model=base_model,
        datasets=datasets or None,
        tags=[plain(tag) for tag in tags],
        metrics=["accuracy"] if results else None,
        # A model-index without results, or a name without a model-index, would be noise in the header.
        model_name=name if results else None,
        eval_results=results or None,
    )


def _eval_results(record: RobustnessRecord, attack: str) -> list[EvalResult]:
    """Clean and robust accuracy as two metrics of one result; its `config` says what was asked and attacked.

    The attack's other constants stand once, in the card's list of attacks.
    """
    level = f"{record.level_name} ({record.num_classes} classes)"
    where = {
        "task_type": TASK,
        "task_name": "Zero-Shot Image Classification",
        # The Hub wants something like an id here.
        "dataset_type": re.sub(r"[^\w./-]+", "-", plain(record.dataset)).strip("-.") or "images",
        "dataset_name": plain(record.dataset),
        "dataset_split": plain(record.split),
        "dataset_config": plain(f"{level}; {scored_by(record)}; {attack}; seed {record.seed}"),
        "dataset_args": {"num_samples": record.num_samples},
        "metric_type": "accuracy",
    }
    return [
        EvalResult(metric_name="clean accuracy", metric_value=record.clean_accuracy, **where),
        EvalResult(metric_name="robust accuracy", metric_value=record.robust_accuracy, **where),
    ]


def hub_name(name_or_path: str) -> tuple[str, bool]:
    """Public name, and whether it is the `namespace/name` of a Hub repository."""
    name = last_part(public_name(name_or_path))
    try:
        validate_repo_id(name)
    except HFValidationError:
        return name, False
    return name, name == name_or_path and "/" in name


def last_part(path: str) -> str:
    """What remains of a path of some machine, POSIX or Windows; other text stays."""
    return PurePosixPath(path.replace("\\", "/")).name if MACHINE_PATH.match(path) else path
