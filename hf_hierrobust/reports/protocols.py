"""What of a record tells rows, tables and columns of a leaderboard apart: model, task and protocol."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..evaluation.record_checks import defence_constants
from ..evaluation.records import RobustnessRecord

KINDS = {
    "cosine": ("cosine", "prompts"),
    "hyperbolic": ("hyperbolic", "prompts"),
    "rollup": ("cosine", "rolled up"),
    "rollup-hyperbolic": ("hyperbolic", "rolled up"),
    "path": ("cosine", "path"),
    "path-hyperbolic": ("hyperbolic", "path"),
}
"""Of each classifier: how it scores, which tells rows apart, and what it asks, which tells tables apart."""


class Row(NamedTuple):
    """Whose numbers stand on one line: a model under one way to score and one seed of the attacks.

    Attributes:
        defence: constants of the defence that it stands behind, as JSON; "" without one.
    """

    model: str
    model_hash: str | None
    objective: str
    scored_by: str
    seed: int
    defence: str = ""


class Cell(NamedTuple):
    """One measured pair of accuracies, as fractions, and what it took."""

    clean: float
    robust: float
    intervals: Mapping[str, Sequence[float]]
    count: int
    cost: Mapping[str, float] | None
    doubted: str | None


@dataclass(frozen=True)
class Entry:
    """A record in its place.

    Attributes:
        section: attack without its budget, as JSON; level; kind: what one table is about.
        dataset, budget: what one column is about.
        protocol: what else all cells of a column must share.
    """

    row: Row
    section: tuple[str, int, str]
    dataset: str
    budget: tuple[str, float]
    protocol: dict
    cell: Cell
    record: RobustnessRecord

    @property
    def protocol_key(self) -> str:
        return json.dumps(self.protocol, sort_keys=True)

    @property
    def nominal(self) -> tuple:
        return (*self.section, self.dataset)

    @property
    def place(self) -> tuple:
        return (*self.nominal, self.budget, self.protocol_key)


def entry_of(record: RobustnessRecord) -> Entry:
    (score, kind), defence = KINDS.get(record.classifier, (record.classifier, "prompts")), ""
    if record.defence is not None:
        score = f"{score} + {record.defence['name']}"
        defence = json.dumps(defence_constants(record.defence), sort_keys=True)
    masking = record.checks.get("masking")
    cell = Cell(
        record.clean_accuracy,
        record.robust_accuracy,
        record.intervals,
        record.num_samples,
        record.cost,
        masking if isinstance(masking, str) and masking.startswith("suspected") else None,
    )
    return Entry(
        Row(record.model, record.model_hash, record.objective, score, record.seed, defence),
        (json.dumps(method_of(record.attack), sort_keys=True), record.level, kind),
        record.dataset,
        (record.attack["norm"], record.attack["eps"]),
        _protocol(record),
        cell,
        record,
    )


def base_entry(record: RobustnessRecord) -> Entry | None:
    """The undefended base that stands beside a record, as if it had a record of its own."""
    base = record.base
    if base is None or not base.get("model") or record.crafted_level is not None or record.defence:
        return None
    score, kind = KINDS.get(base.get("classifier", record.classifier), (record.classifier, "prompts"))
    entry = entry_of(record)
    cell = Cell(
        base["clean_accuracy"], base["robust_accuracy"], base["intervals"], record.num_samples, None, None
    )
    row = Row(base["model"], None, "none", score, record.seed)
    section = (*entry.section[:2], kind)
    return Entry(row, section, entry.dataset, entry.budget, entry.protocol, cell, record)


def method_of(attack: Mapping[str, Any]) -> dict:
    """Constants of an attack that tables of several budgets share."""
    kept = {k: v for k, v in attack.items() if k not in ("eps", "eps_text", "step_size", *_SETTING)}
    if isinstance(kept.get("attacks"), Sequence):
        kept["attacks"] = [method_of(one) for one in kept["attacks"]]
    return kept


_SETTING = ("space", "search_dtype", "resolution", "batch_size")
"""What belongs to the protocol of a data set rather than to the attack."""


def _protocol(record: RobustnessRecord) -> dict:
    """What records of one data set must share to stand in one column, the budget aside."""
    return {
        "split": record.split,
        "classes": record.num_classes,
        "class_set": record.class_set,
        "tree_hash": record.tree_hash or record.tree,
        "templates_hash": record.templates_hash,
        "images": record.num_samples,
        "chosen": record.sample_ids.get("how", ""),
        "sha256": record.sample_ids["sha256"],
        "step": _steps(record.attack),
        **{name: _setting(record.attack, name) for name in _SETTING},
    }


def _setting(attack: Mapping[str, Any], name: str) -> Any:
    """An entry of the attack, or of its several attacks where they differ."""
    if isinstance(attack.get("attacks"), Sequence):
        own = [_setting(one, name) if name in one else attack.get(name) for one in attack["attacks"]]
        return own if any(value != attack.get(name) for value in own) else attack.get(name)
    return attack.get(name)


def _steps(attack: Mapping[str, Any]) -> Any:
    """Step sizes as fractions of the budget, so that eps/4 is one protocol at every budget."""
    if isinstance(attack.get("attacks"), Sequence):
        return [_steps(one | {"eps": one.get("eps", attack["eps"])}) for one in attack["attacks"]]
    step, eps = attack.get("step_size"), attack["eps"]
    numbers = all(isinstance(value, (int, float)) for value in (step, eps))
    return round(step / eps, 6) if numbers and eps else step  # an attack of one's own may keep it as text


_WORDS = {
    "sha256": "which images, or their pixels",
    "chosen": "how images were chosen",
    "images": "number of images",
    "tree_hash": "class tree",
    "templates_hash": "prompt templates",
    "class_set": "class names",
    "space": "threat space",
    "search_dtype": "precision of the search",
    "step": "step size by eps",
}


def _shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:23]}…"


def difference(protocols: Mapping[str, Mapping], first: Mapping[str, Mapping]) -> str:
    """In what the data sets' protocols differ from those of the first table, in words."""
    said: Counter[str] = Counter()
    for name, protocol in protocols.items():
        other = first[name]
        for what, value in protocol.items():
            if value != other[what]:
                shown = (
                    "" if what in ("sha256", "chosen") else f" ({_shown(value)}, not {_shown(other[what])})"
                )
                said[f"{_WORDS.get(what, what)}{shown}"] += 1
    return ", ".join(said)
