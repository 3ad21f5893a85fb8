"""Records as Markdown tables, and the short names of what was measured, for tables, cards and figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from ..evaluation.record_checks import defence_constants, eps_text
from ..evaluation.records import RobustnessRecord
from ..naming import level_name
from .markdown import Markdown, table, text

DOUBT = "‡"
"""Marks a robust accuracy that its checks speak against."""
UNEQUAL = "§"
"""Marks accuracies over classes of which one has a large part of the images."""


def doubted(record: RobustnessRecord) -> bool:
    """Whether a check speaks against the robust accuracy."""
    return str(record.checks.get("masking")).startswith("suspected")


def attack_label(attack: Mapping[str, Any]) -> str:
    """Short name of an attack's constants, such as "pgd-20 (ce+margin), linf, eps 1/255, step 1/255".

    Cross-entropy alone, the usual loss, is not named.
    """
    steps = f"-{attack['num_steps']}" if attack.get("num_steps") else ""
    loss = f" ({attack['loss']})" if attack.get("loss") not in (None, "ce") else ""
    parts = [f"{attack['name']}{steps}{loss}", attack["norm"], f"eps {attack['eps_text']}"]
    if attack.get("step_size"):
        step = attack["step_size"]  # as text, where an attack of one's own keeps it so
        parts.append(f"step {step if isinstance(step, str) else eps_text(attack['norm'], step)}")
    if (attack.get("restarts") or 1) > 1:
        parts.append(f"{attack['restarts']} restarts")
    if attack.get("text_order", "text_first") != "text_first":
        parts.append(f"order {attack['text_order']}")
    if attack.get("target"):
        parts.append(f"target {attack['target']}")
    return ", ".join(parts)


def attack_short(attack: Mapping[str, Any]) -> str:
    """The least that names an attack: "pgd-20 linf:4/255 native"."""
    steps = f"-{attack['num_steps']}" if attack.get("num_steps") else ""
    order = attack.get("text_order", "text_first")
    target = f" {attack['target']}" if attack.get("target") else ""
    target += f" {order}" if order != "text_first" else ""
    return f"{attack['name']}{steps}{target} {attack['norm']}:{attack['eps_text']} {attack['space']}"


def scored_by(record: RobustnessRecord | Mapping[str, Any]) -> str:
    """The classifier whose verdicts count, with its defence, and the level attacked in its stead."""
    entries = record if isinstance(record, Mapping) else vars(record)
    name = entries["classifier"]
    if defence := entries.get("defence"):
        name = f"{name} + {defence['name']}"
    crafted = entries.get("crafted_level")
    return name if crafted is None else f"{name}, crafted at {level_name(crafted)}"


def defences_apart(defences: Iterable[Mapping[str, Any] | None]) -> Callable[[Mapping | None], str]:
    """What names a defence among these: "" or, where one of its name has other constants, those that differ.

    Such as "eot 50, threshold 0.05".
    """
    known = [one for one in map(defence_constants, defences) if one]

    def name(defence: Mapping[str, Any] | None) -> str:
        own = defence_constants(defence) or {}
        twins = [one for one in known if one["name"] == own.get("name")]
        keys = sorted({key for one in (own, *twins) for key in one})
        differ = [key for key in keys if any(one.get(key) != own.get(key) for one in twins)]
        return ", ".join(f"{key.replace('_', ' ')} {_number(own.get(key))}" for key in differ)

    return name


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def attack_names(
    records: Sequence[RobustnessRecord], name: Callable[[Mapping[str, Any]], str] = attack_label
) -> dict[str, str]:
    """Name of each attack of some records, by `attack_key`; equal names of unequal attacks are numbered."""
    attacks = {attack_key(record): name(record.attack) for record in records}
    seen: dict[str, int] = {}
    for key, label in attacks.items():
        seen[label] = seen.get(label, 0) + 1
        attacks[key] = label if seen[label] == 1 else f"{label} ({seen[label]})"
    return attacks


def attack_key(record: RobustnessRecord) -> str:
    """What two records of one attack have in common: all its constants."""
    return json.dumps(record.attack, sort_keys=True)


def borrowed_base(record: RobustnessRecord | Mapping[str, Any]) -> str | None:
    """The classifier behind the base's numbers where it is another one than the record's own; else None.

    A base has no hyperbolic head: what stands beside a hyperbolic classifier is the base's cosine one.
    """
    entries = record if isinstance(record, Mapping) else record.to_dict()
    other = (entries.get("base") or {}).get("classifier")
    return other if other and other != entries["classifier"] else None


def unequal_classes(record: RobustnessRecord) -> bool:
    """Whether the largest class has a tenth of the images, and more than twice an equal share.

    A network that always answers it is robust on all of them.
    """
    if record.classes is None:
        return False
    images = [n for n in record.classes["images"] if n]
    return max(images) / record.num_samples > max(2 / len(images), 0.1)


def _balanced(record: RobustnessRecord) -> str:
    means, share = record.balanced, max(record.classes["images"]) / record.num_samples
    name = f"{text(record.level_name)} ({record.num_classes}) by {text(record.classifier)}"
    return f"{name} {100 * means['clean']:.1f} and {100 * means['robust']:.1f}, largest class {share:.0%}"


def records_table(
    records: Sequence[RobustnessRecord], *, interval: Literal["brackets", "plusminus"] = "brackets"
) -> str:
    """Markdown table, one row per record in the given order, accuracies in percent with 95 % intervals.

    A robust accuracy that its checks speak against carries `DOUBT`; where one class has many of the images
    (`unequal_classes`), the row carries `UNEQUAL` and the means over the classes stand below. What all
    records share moves to a sentence below the table; what differs becomes a column. With a `base` in any
    record there are columns before and after fine-tuning.

    Args:
        interval: "brackets" for `41.0 [38.0, 44.1]`, "plusminus" for `41.0 ± 3.1` (the wider side).

    Raises:
        ValueError: no records, or an unknown `interval`.
    """
    if not records:
        raise ValueError("records is empty; a table needs at least one record.")
    if interval not in ("brackets", "plusminus"):
        raise ValueError(f"interval={interval!r} is unknown; choose 'brackets' or 'plusminus'.")
    labels, common = _told_apart(attack_names(records))
    apart = defences_apart(record.defence for record in records)
    columns = _COLUMNS | {
        "Attack": lambda record: labels[attack_key(record)],
        "Classifier": lambda record: ", ".join(filter(None, (scored_by(record), apart(record.defence)))),
    }
    shown, shared = [], [f"attacks {text(common)}"] if common else []
    for title, value_of in columns.items():
        varies = len({value_of(record) for record in records}) > 1
        if varies or title in ("Level", "Classifier"):
            shown.append(title)
        else:
            shared.append(f"{title.lower()} {text(value_of(records[0]))}")
    has_base = any(record.base for record in records)
    numbers = ["Clean before", "Clean after", "Robust before", "Robust after"]
    numbers = numbers if has_base else ["Clean", "Robust"]
    rows, borrowed = [], set()
    for record in records:
        cells = []
        for kind in ("clean", "robust"):
            if has_base:
                mark = "†" if borrowed_base(record) else ""
                cells.append(_cell(record.base, kind, interval) + mark)
            doubt = DOUBT if kind == "robust" and doubted(record) else ""
            unequal = UNEQUAL if unequal_classes(record) else ""
            cells.append(_cell(record.to_dict(), kind, interval) + unequal + doubt)
        borrowed |= {borrowed_base(record)} - {None}
        rows.append([*(columns[title](record) for title in shown), *map(Markdown, cells)])
    note = "; ".join([*shared, "accuracy in % with 95 % Wilson interval"])
    grid = table([*shown, *numbers], rows, right=len(numbers))
    lines = [grid, "", f"{note[0].upper()}{note[1:]}."]
    if borrowed:
        own = " or ".join(sorted(borrowed))
        lines += ["", f"† The base has no such classifier; shown is its {own} one."]
    if found := [record for record in records if unequal_classes(record)]:
        means = "; ".join(map(_balanced, found))
        lines += [
            "",
            f"{UNEQUAL} Classes of unequal size. Means over them, clean and robust, row by row: {means}.",
        ]
    if any(map(doubted, records)):
        lines += ["", f"{DOUBT} Probably too high: a check of the attack failed, see the record's `checks`."]
    return "\n".join(lines) + "\n"


def _told_apart(labels: dict[str, str]) -> tuple[dict[str, str], str]:
    """What tells some attacks apart, by their keys, and what their names have in common."""
    parts = {key: label.split(", ") for key, label in labels.items()}
    common = [part for part in next(iter(parts.values())) if all(part in own for own in parts.values())]
    short = {key: ", ".join(part for part in own if part not in common) for key, own in parts.items()}
    return (short, ", ".join(common)) if all(short.values()) else (labels, "")


_COLUMNS: dict[str, Callable[[RobustnessRecord], Any]] = {
    "Model": lambda r: r.model,
    "Objective": lambda r: r.objective,
    "Dataset": lambda r: f"{r.dataset} ({r.split})",
    "Level": lambda r: f"{r.level_name} ({r.num_classes})",
    "Classifier": scored_by,
    "Attack": lambda r: attack_label(r.attack),
    "Space": lambda r: r.attack["space"],
    "Seed": lambda r: r.seed,
    "Images": lambda r: r.num_samples,
}


def _cell(entries: Mapping[str, Any] | None, kind: str, interval: str) -> str:
    if entries is None:
        return "–"
    value, (low, high) = entries[f"{kind}_accuracy"], entries["intervals"][kind]
    if interval == "plusminus":
        return f"{100 * value:.1f} ± {100 * max(value - low, high - value):.1f}"
    return f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
