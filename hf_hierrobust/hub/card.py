"""The model card: facts about a run in, a README.md with machine-readable results out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.utils import HFValidationError, validate_repo_id

from ..evaluation.records import RobustnessRecord
from ..files import write_atomically
from ..naming import MACHINE_PATH, public_name
from ..reports.tables import attack_label, records_table

TEMPLATE = Path(__file__).with_name("card_template.md")
TASK = "zero-shot-image-classification"
ARXIV_ID = re.compile(r"\d{4}\.\d{4,5}(v\d+)?")

# The directories of an absolute path inside a sentence. A slash after a word, a colon or another slash is one
# of a fraction (4/255), a URL or a relative path, and stays.
DIRECTORIES = re.compile(
    r"(?:file:/+|(?<![\w/:.~\\])(?:/|(?:~|[A-Za-z]:)[/\\]))"  # where it starts
    r"(?:[^\s/\\|,;:'\"`()]+[/\\])+"  # all but its last part
)


@dataclass(frozen=True, kw_only=True)
class TreeFacts:
    """A class tree of a run: `levels` counts the classes of each level, leaves first; see `LabelTree`."""

    name: str
    levels: Sequence[int]
    hash: str
    source: str = ""
    licence: str = ""


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What a card says; nothing in it is guessed.

    Attributes:
        model_name: Title of the card and name in its `model-index`.
        base_model: Hub id or local path of the undefended model; of a path only the last part is published.
        objective: Name of the training objective, equal to that of every record.
        threat_model: The threat model trained against, in words.
        paper_id, paper_title, citation: arXiv id, title and BibTeX entry of the objective's paper.
        repo_id: Hub id that the code examples load; the model's name if it is not known yet.
        datasets: Training data, Hub ids or local paths.
        hyperparameters: Every training setting as it was really used; keys that end in "token" are left out.
        trained_parameters: Number of trained scalars by parameter group.
        trees: The class trees, if the objective used any.
        visual_prompt: The defence is a visual prompt, which stock transformers does not load.
        records: Measurements of this model; its undefended base stands in their field `base`.
        figures: Paths of images, relative to the card.
        licence: Hub licence identifier, such as "mit".
        language: ISO 639 code of the class names and templates.
        tags: Further Hub tags.
        limitations: Text below the fixed statement on attacks.

    Raises:
        ValueError: An empty name, a figure outside the card's folder, records of several models or of another
            objective.
    """

    model_name: str
    base_model: str
    objective: str
    threat_model: str
    paper_id: str = ""
    paper_title: str = ""
    citation: str = ""
    repo_id: str | None = None
    datasets: Sequence[str] = ()
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    trained_parameters: Mapping[str, int] = field(default_factory=dict)
    trees: Sequence[TreeFacts] = ()
    visual_prompt: bool = False
    records: Sequence[RobustnessRecord] = ()
    figures: Sequence[str] = ()
    licence: str | None = None
    language: str = "en"
    tags: Sequence[str] = ()
    limitations: str = ""

    def __post_init__(self) -> None:
        for name in ("model_name", "base_model", "objective", "threat_model"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; a card must name it")
        for figure in self.figures:
            if MACHINE_PATH.match(figure) or ".." in PurePosixPath(figure).parts:
                raise ValueError(f"figures holds {figure!r}; give paths relative to the card's folder")
        models = sorted({record.model for record in self.records})
        if len(models) > 1:
            raise ValueError(
                f"records measure several models {models}; a card shows one, with its base in record.base"
            )
        objectives = {record.objective for record in self.records} - {self.objective}
        if objectives:
            raise ValueError(
                f"records were measured for objective {sorted(objectives)}, but objective={self.objective!r}"
            )


def render_card(facts: CardFacts) -> str:
    """The card as Markdown with its YAML header, free of absolute paths of this machine."""
    base_name, base_is_hub = _hub_name(facts.base_model)
    datasets = [_hub_name(dataset) for dataset in facts.datasets]
    card = ModelCard.from_template(
        _metadata(facts, base_name if base_is_hub else None, [name for name, is_hub in datasets if is_hub]),
        template_path=str(TEMPLATE),
        facts=facts,
        name=_last_part(facts.model_name),
        base=f"[{base_name}](https://huggingface.co/{base_name})" if base_is_hub else f"`{base_name}`",
        paper=_paper_link(facts),
        load_id=facts.repo_id or _last_part(facts.model_name),
        results_table=records_table(facts.records).strip() if facts.records else "",
        has_base=any(record.base for record in facts.records),
        base_missing=not all(record.base for record in facts.records),
        versions=_unique(_items(record.versions) for record in facts.records),
        checks=_unique(_checks_line(record) for record in facts.records if record.checks),
        attacks=_unique(_attack_line(record) for record in facts.records),
        figures=[
            {"path": path, "caption": PurePosixPath(path).stem.replace("_", " ")} for path in facts.figures
        ],
        template=facts.hyperparameters.get("template", "a photo of a {}."),
        threat_model=_without_directories(facts.threat_model),
        datasets=[name for name, _ in datasets],
        hyperparameters=[
            (_cell(key), _cell(value))
            for key, value in facts.hyperparameters.items()
            if not key.endswith("token")
        ],
        trees=[_public_tree(tree) for tree in facts.trees],
        limitations=_without_directories(facts.limitations),
    )
    return re.sub(r"\n{3,}", "\n\n", str(card)).rstrip() + "\n"


def write_card(output_dir: str | Path, facts: CardFacts) -> Path:
    """Writes `render_card(facts)` to README.md in `output_dir`; a crash leaves the previous card whole.

    Returns:
        Path of the card.
    """
    return write_atomically(Path(output_dir) / "README.md", render_card(facts))


def _metadata(facts: CardFacts, base_model: str | None, datasets: list[str]) -> ModelCardData:
    results = [result for record in facts.records for result in _eval_results(record)]
    return ModelCardData(
        language=facts.language,
        license=facts.licence,
        library_name="hf_hierrobust" if facts.visual_prompt else "transformers",
        pipeline_tag=TASK,
        base_model=base_model,
        datasets=datasets or None,
        tags=["hf_hierrobust", "adversarial-robustness", facts.objective, *facts.tags],
        metrics=["accuracy"] if results else None,
        # A model-index without results, or a name without a model-index, would be noise in the header.
        model_name=_last_part(facts.model_name) if results else None,
        eval_results=results or None,
    )


def _eval_results(record: RobustnessRecord) -> list[EvalResult]:
    """Clean and robust accuracy as two metrics of one result; its `config` says what was attacked and how."""
    attack = attack_label(record.attack)
    level = f"{record.level_name} ({record.num_classes} classes)"
    where = {
        "task_type": TASK,
        "task_name": "Zero-Shot Image Classification",
        "dataset_type": record.dataset,
        "dataset_name": record.dataset,
        "dataset_split": record.split,
        "dataset_config": f"{level}; {record.classifier}; {_attack_line(record)}; seed {record.seed}",
        "dataset_args": {"num_samples": record.num_samples},
        "metric_type": "accuracy",
    }
    return [
        EvalResult(metric_name=f"clean accuracy, {level}", metric_value=record.clean_accuracy, **where),
        EvalResult(
            metric_name=f"robust accuracy, {level}, {attack}",
            metric_value=record.robust_accuracy,
            metric_args=record.attack,
            **where,
        ),
    ]


def _attack_line(record: RobustnessRecord) -> str:
    """An attack with all its constants: the short label, then what the label does not say."""
    said = {"name", "norm", "eps", "eps_text", "num_steps", "step_size", "restarts"}
    rest = {key: value for key, value in record.attack.items() if key not in said and value is not None}
    return f"{attack_label(record.attack)}; {_items(rest)}"


def _public_tree(tree: TreeFacts) -> TreeFacts:
    source, licence = (_without_directories(text).rstrip(".") for text in (tree.source, tree.licence))
    return replace(tree, source=source, licence=licence)


def _checks_line(record: RobustnessRecord) -> str:
    where = f"{record.dataset}, {record.level_name}, {record.classifier}"
    return f"{where}, {attack_label(record.attack)}: {_items(record.checks)}"


def _hub_name(name_or_path: str) -> tuple[str, bool]:
    """Public name, and whether it is the `namespace/name` of a Hub repository."""
    name = _last_part(public_name(name_or_path))
    try:
        validate_repo_id(name)
    except HFValidationError:
        return name, False
    return name, name == name_or_path and "/" in name


def _paper_link(facts: CardFacts) -> str:
    title = facts.paper_title or (f"arXiv:{facts.paper_id}" if facts.paper_id else "")
    if ARXIV_ID.fullmatch(facts.paper_id):
        return f"[{title}](https://arxiv.org/abs/{facts.paper_id})"
    return title


def _last_part(path: str) -> str:
    """What remains of a path of some machine, POSIX or Windows; other text stays."""
    return PurePosixPath(path.replace("\\", "/")).name if MACHINE_PATH.match(path) else path


def _without_directories(text: str) -> str:
    return DIRECTORIES.sub("", text)


def _cell(value: Any) -> str:
    """A table cell: numbers short, paths shrunk to their last part, nothing that ends the cell."""
    if isinstance(value, Mapping):
        text = _items(value)
    elif isinstance(value, (list, tuple)):
        text = ", ".join(_cell(entry) for entry in value)
    elif isinstance(value, float):
        text = f"{value:.6g}"
    elif isinstance(value, (str, os.PathLike)) and MACHINE_PATH.match(os.fspath(value)):
        text = _last_part(os.fspath(value))
    else:
        text = _without_directories(str(value))
    return re.sub(r"(?<!\\)\|", r"\|", " ".join(text.split()))


def _items(entries: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_cell(value)}" for key, value in entries.items())


def _unique(lines: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(lines))
