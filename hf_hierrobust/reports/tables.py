"""Records as Markdown tables, and the short names of what was measured, for tables, cards and figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from ..evaluation.record_checks import eps_text
from ..evaluation.records import RobustnessRecord
from .markdown import table, text


def attack_label(attack: Mapping[str, Any]) -> str:
    """Short name of an attack's constants, such as "pgd-20 (ce+margin), linf, eps 1/255, step 1/255".

    Cross-entropy alone, the usual loss, is not named.
    """
    steps = f"-{attack['num_steps']}" if attack.get("num_steps") else ""
    loss = f" ({attack['loss']})" if attack.get("loss") not in (None, "ce") else ""
    parts = [f"{attack['name']}{steps}{loss}", attack["norm"], f"eps {attack['eps_text']}"]
    if attack.get("step_size"):
        parts.append(f"step {eps_text(attack['norm'], attack['step_size'])}")
    if (attack.get("restarts") or 1) > 1:
        parts.append(f"{attack['restarts']} restarts")
    return ", ".join(parts)


def records_table(
    records: Sequence[RobustnessRecord], *, interval: Literal["brackets", "plusminus"] = "brackets"
) -> str:
    """Markdown table, one row per record in the given order, accuracies in percent with 95 % intervals.

    What all records share moves to a sentence below the table; what differs becomes a column. With a `base`
    in any record there are columns before and after fine-tuning.

    Args:
        interval: "brackets" for `41.0 [38.0, 44.1]`, "plusminus" for `41.0 ± 3.1` (the wider side).

    Raises:
        ValueError: no records, or an unknown `interval`.
    """
    if not records:
        raise ValueError("records is empty; a table needs at least one record.")
    if interval not in ("brackets", "plusminus"):
        raise ValueError(f"interval={interval!r} is unknown; choose 'brackets' or 'plusminus'.")
    shown, shared = [], []
    for title, value_of in _COLUMNS.items():
        varies = len({value_of(record) for record in records}) > 1
        if varies or title in ("Level", "Classifier"):
            shown.append(title)
        else:
            shared.append(f"{title.lower()} {text(value_of(records[0]))}")
    has_base = any(record.base for record in records)
    numbers = ["Clean before", "Clean after", "Robust before", "Robust after"]
    numbers = numbers if has_base else ["Clean", "Robust"]
    rows = []
    for record in records:
        entries = [record.base, record.to_dict()] if has_base else [record.to_dict()]
        cells = [_cell(entry, kind, interval) for kind in ("clean", "robust") for entry in entries]
        rows.append([text(_COLUMNS[title](record)) for title in shown] + cells)
    note = "; ".join([*shared, "accuracy in % with 95 % Wilson interval"])
    grid = table([*shown, *numbers], rows, right=len(numbers))
    return f"{grid}\n\n{note[0].upper()}{note[1:]}.\n"


_COLUMNS: dict[str, Callable[[RobustnessRecord], Any]] = {
    "Model": lambda r: r.model,
    "Objective": lambda r: r.objective,
    "Dataset": lambda r: f"{r.dataset} ({r.split})",
    "Level": lambda r: f"{r.level_name} ({r.num_classes})",
    "Classifier": lambda r: r.classifier,
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
