"""The model card: facts about a run in, a README.md with machine-readable results out."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import jinja2

from ..evaluation.records import RobustnessRecord
from ..files import write_atomically
from ..naming import MACHINE_PATH, file_stem, without_directories
from ..readme import BEGIN, END, merge
from ..reports.depth_table import depth_table
from ..reports.drift import drift_sentences
from ..reports.markdown import Markdown, block, code, folded, literal, table, text, url
from ..reports.masking import masking_sentence
from ..reports.tables import attack_key, attack_names, records_table
from ..threat import format_eps
from ..uploads import EVAL_RESULTS, README
from .eval_results import eval_results
from .facts import CardFacts, TreeFacts
from .metadata import card_metadata, hub_name, last_part

TEMPLATE = Path(__file__).with_name("card_template.md")
ARXIV_ID = re.compile(r"\d{4}\.\d{4,5}(v\d+)?")
PRINTED_NODES = 40
"""Largest tree, in lines, that a card prints."""
FEW_IMAGES, FEW_STEPS = 200, 20
"""What a card warns of below."""
CLASSIFIERS = {
    "cosine": "cosine similarity of the image and the prompt of each class, as in CLIP; at a superclass "
    "level the prompts name the superclasses",
    "hyperbolic": "distance in the Poincaré ball between the image and the prompt of each class, with the "
    "head in `hier_head.safetensors`",
    "rollup": "probabilities of the leaves by cosine, summed within each superclass",
    "rollup-hyperbolic": "probabilities of the leaves by hyperbolic distance, summed within each superclass",
    "path": "cosine score of each leaf plus the scores of the superclasses above it",
    "path-hyperbolic": "hyperbolic score of each leaf plus the scores of the superclasses above it",
}
CAPTIONS = {
    "before_after": "Clean and robust accuracy, before and after training",
    "training": "Loss terms and accuracy during training",
    "examples": "Attacked images",
    "ball": "Class tree and images in the Poincaré ball",
    "depth": "Margin against depth: what the norms of each level allow, and what the model has",
}


def render_card(facts: CardFacts) -> str:
    """The card as Markdown with its YAML header, free of absolute paths of this machine.

    Everything that the template prints is escaped unless it is `Markdown` already.
    """
    base_name, base_is_hub = hub_name(facts.base_model)
    datasets = [hub_name(dataset) for dataset in facts.datasets]
    name = last_part(facts.model_name)
    names = facts.class_names[:3]
    base_link = (
        Markdown(f"[{base_name}](https://huggingface.co/{base_name})") if base_is_hub else code(base_name)
    )
    environment = jinja2.Environment(
        autoescape=False,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=text,
    )
    body = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        facts=facts,
        name=name,
        base=base_link,
        objective=code(facts.objective),
        paper=_paper_link(facts),
        load_id=literal(facts.repo_id or name),
        shown_id=code(facts.repo_id or name),
        labels=Markdown(", ".join(literal(entry) for entry in names)),
        hypothesis=literal(_format_string(facts.template)),
        prompts=[Markdown(literal(facts.template.replace("{}", entry))) for entry in names],
        warnings=[without_directories(line) for line in (*card_warnings(facts), *facts.warnings)],
        results_table=_unbroken(records_table(facts.records).strip()) if facts.records else "",
        depth=Markdown(depth_table(facts.records).strip()),
        drift=drift_sentences(facts.records),
        has_base=any(record.base for record in facts.records),
        base_missing=not all(record.base for record in facts.records),
        versions=list(dict.fromkeys(_items(record.versions) for record in facts.records)),
        masking=masking_sentence(facts.records),
        classifiers=_classifiers(facts.records),
        only_cosine={record.classifier for record in facts.records} == {"cosine"},
        attacks=_attacks(facts.records),
        figures=[_figure(path) for path in facts.figures],
        threat_model=without_directories(facts.threat_model),
        datasets=Markdown(", ".join(text(entry) if hub else code(entry) for entry, hub in datasets)),
        settings=_settings("setting", facts.hyperparameters),
        defaults=_settings("setting", facts.defaults),
        has_adapter=base_is_hub and bool(facts.hyperparameters.get("lora_r")) and not facts.visual_prompt,
        trained_with=_items(facts.versions),
        trained=_counts(facts.trained_parameters),
        trees=[_tree(tree) for tree in facts.trees],
        limitations=without_directories(facts.limitations),
        citation=block(facts.citation.strip(), "bibtex") if facts.citation else "",
    )
    hub_datasets = [entry for entry, is_hub in datasets if is_hub]
    header = card_metadata(facts, name, base_name if base_is_hub else None, hub_datasets).to_yaml()
    body = re.sub(r"\n{3,}", "\n\n", body).strip()
    return merge(f"---\n{header}\n---\n\n{BEGIN}\n\n{body}\n\n{END}\n", None)


def write_card(output_dir: str | Path, facts: CardFacts) -> Path:
    """Writes the card into README.md in `output_dir`, around which what its owner wrote there stays.

    The measurements also go to `.eval_results/robustness.yaml`, see `eval_results`. A crash leaves previous
    files whole.

    Returns:
        Path of the card.
    """
    path, results = Path(output_dir) / README, Path(output_dir) / EVAL_RESULTS
    there = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
    write_atomically(path, merge(render_card(facts), there))
    if found := eval_results(facts.records, facts.repo_id):
        write_atomically(results, found)
    else:
        results.unlink(missing_ok=True)
    return path


def _unbroken(shown: str) -> Markdown:
    """A table whose intervals stay on one line, however narrow its columns are."""
    return Markdown(re.sub(r"\[([\d.]+), ([\d.]+)\]", "[\\1,\u00a0\\2]", shown))


def card_warnings(facts: CardFacts) -> list[str]:
    """What makes the measurements of a card weak, in sentences."""
    records, found = facts.records, []
    if not records:
        return found
    if (count := min(record.num_samples for record in records)) < FEW_IMAGES:
        found.append(f"Only {count} images were evaluated: the intervals are wide.")
    steps = [record.attack["num_steps"] for record in records if record.attack.get("num_steps")]
    if steps and min(steps) < FEW_STEPS:
        found.append(
            f"The attack took only {min(steps)} steps; one of {FEW_STEPS} or more would break more images."
        )
    shared = max(record.sample_ids.get("shared_with_training") or 0 for record in records)
    if shared:
        found.append(
            f"{shared} of the evaluated images are also training images: what is measured on them says "
            "nothing about new ones."
        )
    if not any(record.base for record in records):
        found.append("The undefended base model was not measured, so the gain is unknown.")
    return found


def _classifiers(records: Sequence[RobustnessRecord]) -> list[Markdown]:
    names = dict.fromkeys(record.classifier for record in records)
    return [Markdown(f"**{name}**: {CLASSIFIERS[name]}.") for name in names if name in CLASSIFIERS]


def _attacks(records: Sequence[RobustnessRecord]) -> list[dict[str, Markdown]]:
    """Every attack once: its label and space, and its other constants in a table to unfold."""
    labels, found = attack_names(records), {}
    for record in records:
        said = {"name", "norm", "eps", "eps_text", "num_steps", "step_size", "restarts", "space"}
        if record.attack.get("loss") != "ce":
            said.add("loss")
        rest = {k: v for k, v in record.attack.items() if k not in said and v is not None}
        key = attack_key(record)
        label = Markdown(f"**{text(labels[key])}**, space {text(record.attack['space'])}")
        found[key] = {
            "label": label,
            "rest": _settings("constant", rest, folded_as=f"More on {labels[key]}"),
        }
    return list(found.values())


def _settings(head: str, values: Mapping[str, Any], folded_as: str = "") -> Markdown:
    """A table of settings; None and secrets are left out, budgets are written in grey levels."""
    linf = values.get("attack.norm", values.get("norm", "linf")) == "linf"
    rows = [
        (key, _setting(key, value, linf))
        for key, value in values.items()
        if value is not None and not key.endswith("token")
    ]
    shown = table([head, "value"], rows) if rows else Markdown("")
    return folded(folded_as, shown) if rows and folded_as else shown


def _setting(key: str, value: Any, linf: bool) -> str:
    budget = key in ("attack.eps", "attack.step_size", "eps", "step_size")
    if budget and linf and isinstance(value, float):
        return format_eps(value)
    return _value(value)


def _value(value: Any) -> str:
    """Numbers short, paths shrunk to their last part."""
    if isinstance(value, Mapping):
        return _items(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(_value(entry) for entry in value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (str, os.PathLike)) and MACHINE_PATH.match(os.fspath(value)):
        return last_part(os.fspath(value))
    return without_directories(str(value))


def _items(entries: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_value(value)}" for key, value in entries.items() if value is not None)


def _counts(parameters: Mapping[str, int]) -> Markdown:
    rows = [(group, f"{count:,}") for group, count in parameters.items()]
    return table(["trained parameters", "count"], rows, right=1) if rows else Markdown("")


def _figure(path: str) -> dict[str, Any]:
    stem = PurePosixPath(path).stem
    return {"path": url(path), "caption": CAPTIONS.get(stem, stem.replace("_", " "))}


def _tree(tree: TreeFacts) -> dict[str, Any]:
    outline = _outline(tree.paths)
    return {
        "name": code(tree.name),
        "hash": code(tree.hash),
        "file": code(f"{file_stem(tree.name)}.tree.json"),
        "levels": len(tree.levels),
        "sizes": ", ".join(map(str, tree.levels)),
        "source": without_directories(tree.source).rstrip("."),
        "licence": without_directories(tree.licence).rstrip("."),
        "outline": block("\n".join(outline)) if 0 < len(outline) <= PRINTED_NODES else "",
    }


def _outline(paths: Mapping[str, Sequence[str]]) -> list[str]:
    """Lines of a tree, the most general names first and every level two blanks further in."""
    branches: dict = {}
    for leaf, above in paths.items():
        branch = branches
        for name in dict.fromkeys([*reversed(above), leaf]):  # padding repeats a name
            branch = branch.setdefault(" ".join(name.split()), {})

    def lines(branch: Mapping, depth: int) -> list[str]:
        return [
            line for name, below in branch.items() for line in ("  " * depth + name, *lines(below, depth + 1))
        ]

    return lines(branches, 0)


def _format_string(template: str) -> str:
    """The template for `str.format`, in which its other braces must be doubled."""
    before, after = (part.replace("{", "{{").replace("}", "}}") for part in template.split("{}"))
    return before + "{}" + after


def _paper_link(facts: CardFacts) -> Markdown:
    title = facts.paper_title or (f"arXiv:{facts.paper_id}" if facts.paper_id else "")
    if ARXIV_ID.fullmatch(facts.paper_id):
        return Markdown(f"[{text(title)}](https://arxiv.org/abs/{facts.paper_id})")
    return text(title)
