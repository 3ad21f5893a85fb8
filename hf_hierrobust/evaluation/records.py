"""Robustness records: one measured accuracy with everything needed to read, repeat or doubt it, as JSON."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from ..files import write_atomically
from ..threat import format_eps
from .record_checks import (
    check_flags,
    check_identity,
    checked_accuracies,
    checked_attack,
    checked_base,
    eps_text,
    to_plain,
)

__all__ = [
    "RecordFormatError",
    "RobustnessRecord",
    "attack_label",
    "describe_samples",
    "environment_versions",
    "format_eps",
    "load_records",
    "records_table",
    "save_records",
]

SCHEMA = "hf_hierrobust.robustness_records"
SCHEMA_VERSION = 1


class RecordFormatError(ValueError):
    """A records file is not JSON, is of another schema, or a record lacks or has unexpected fields."""


def environment_versions() -> dict[str, str]:
    """Versions of what decides a number: python, torch, transformers and this package."""
    import hf_hierrobust

    installed = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
    return {"python": platform.python_version(), **installed, "hf_hierrobust": hf_hierrobust.__version__}


def describe_samples(ids: Iterable[int | str], how: str) -> dict[str, Any]:
    """The `sample_ids` entry of a record: `how` in words, the count, and a SHA-256 over the ids in order.

    Two records measured the same images in the same order if and only if their hashes agree.

    Raises:
        ValueError: no ids, or an id occurs twice.
    """
    names = [str(i) for i in ids]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"ids holds {len(names)} entries, {len(set(names))} distinct; need >= 1 and no repeats."
        )
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    return {"how": how, "count": len(names), "sha256": digest}


@dataclass(frozen=True, kw_only=True)
class RobustnessRecord:
    """Clean and robust accuracy of one classifier on one set of images under one attack.

    Accuracies are fractions of the same `num_samples` images; an image counts as robust only if it is right
    both when clean and under attack, so `robust_accuracy <= clean_accuracy`. Numpy and torch scalars become
    JSON types; a non-finite entry of `checks` becomes None.

    Attributes:
        model, dataset: Hub id or `public_name` of a local path, never a path of the machine.
        objective: training objective, or "none" for an untouched base.
        class_set, num_classes: name of the class list, and how many classes this level chooses between.
        level, level_name: 0 = leaves, l = l-th superclass level; `level_name` is "leaf", "superclass", ...
        classifier: whose logits were attacked: "cosine", "hyperbolic", "rollup", "path" (OC-22).
        attack: constants: name, norm, eps (pixel scale), space ("native" | "model"), and where they exist
            step_size, num_steps, restarts, random_start, loss, resolution; `eps_text` ("4/255") is added.
        sample_ids: see `describe_samples`; its count equals `num_samples`.
        intervals: {"clean": [low, high], "robust": [low, high]}, 95 % Wilson, computed from the counts.
        base: the undefended base on the same images: clean_accuracy, robust_accuracy and, optionally, model;
            its intervals are added.
        created: ISO date and time, UTC by default.
        wall_seconds: duration of the measurement, in seconds.
        checks: signs of gradient masking, such as zero_gradient_fraction.
        flags: {"clean": …, "robust": …}, the verdict on every image in the order of the samples, packed by
            `flags.pack_flags`: what paired comparisons of two records need.

    Raises:
        ValueError: a value contradicts another one or its own meaning; the message names the field.
    """

    model: str
    objective: str
    dataset: str
    split: str
    class_set: str
    num_classes: int
    level: int
    level_name: str
    classifier: str
    attack: dict[str, Any]
    seed: int
    num_samples: int
    sample_ids: dict[str, Any]
    clean_accuracy: float
    robust_accuracy: float
    model_hash: str | None = None
    tree: str | None = None
    tree_hash: str | None = None
    templates_hash: str | None = None
    intervals: dict[str, list[float]] = field(default_factory=dict)
    base: dict[str, Any] | None = None
    versions: dict[str, str] = field(default_factory=environment_versions)
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    wall_seconds: float | None = None
    checks: dict[str, Any] = field(default_factory=dict)
    flags: dict[str, str] | None = None

    def __post_init__(self) -> None:
        for f in fields(self):
            object.__setattr__(self, f.name, to_plain(getattr(self, f.name), f.name))
        check_identity(self)
        object.__setattr__(self, "attack", checked_attack(self.attack))
        intervals = checked_accuracies(self.clean_accuracy, self.robust_accuracy, self.num_samples, "")
        object.__setattr__(self, "intervals", intervals)
        if self.flags is not None:
            check_flags(self.flags, self.clean_accuracy, self.robust_accuracy, self.num_samples)
        if self.base is not None:
            object.__setattr__(self, "base", checked_base(self.base, self.num_samples))

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON types; `from_dict` turns it back into an equal record."""
        return asdict(self)

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> RobustnessRecord:
        """Record of a `to_dict` result.

        Raises:
            RecordFormatError: not a mapping, fields missing or unknown.
            ValueError: values that no record may have.
        """
        if not isinstance(entries, Mapping):
            raise RecordFormatError(f"a record is a JSON object, got {type(entries).__name__}.")
        required = {f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING}
        missing, unknown = required - set(entries), set(entries) - {f.name for f in fields(cls)}
        if missing or unknown:
            raise RecordFormatError(f"record lacks {sorted(missing)} and has unknown {sorted(unknown)}.")
        return cls(**entries)


def save_records(path: str | Path, records: Iterable[RobustnessRecord]) -> None:
    """Write records as one JSON file; a crash in between leaves the previous file whole."""
    document = {"schema": SCHEMA, "version": SCHEMA_VERSION, "records": [r.to_dict() for r in records]}
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, text)


def load_records(path: str | Path) -> list[RobustnessRecord]:
    """Read what `save_records` wrote, validating every record again.

    Raises:
        RecordFormatError: broken JSON, another schema or version, or an invalid record (with its index).
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecordFormatError(f"{path.name} is not JSON ({error}); it may have been cut off.") from error
    schema = document.get("schema") if isinstance(document, dict) else None
    version = document.get("version") if isinstance(document, dict) else None
    if (schema, version) != (SCHEMA, SCHEMA_VERSION) or not isinstance(document.get("records"), list):
        raise RecordFormatError(
            f"{path.name} has schema {schema!r} version {version!r}; "
            f"this release reads {SCHEMA!r} version {SCHEMA_VERSION} with a list 'records'."
        )
    records = []
    for index, entries in enumerate(document["records"]):
        try:
            records.append(RobustnessRecord.from_dict(entries))
        except (ValueError, TypeError) as error:
            raise RecordFormatError(f"{path.name}, record {index}: {error}") from error
    return records


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
    for title, value_of in _TABLE_KEYS.items():
        varies = len({value_of(record) for record in records}) > 1
        if varies or title in ("Level", "Classifier"):
            shown.append(title)
        else:
            shared.append(f"{title.lower()} {value_of(records[0])}")
    if any(record.base for record in records):
        numbers = ["Clean before", "Clean after", "Robust before", "Robust after"]
    else:
        numbers = ["Clean", "Robust"]
    rows = [[*shown, *numbers], ["---"] * len(shown) + ["---:"] * len(numbers)]
    for record in records:
        after = [_cell(record.to_dict(), kind, interval) for kind in ("clean", "robust")]
        before = [_cell(record.base, kind, interval) for kind in ("clean", "robust")]
        paired = [before[0], after[0], before[1], after[1]] if len(numbers) == 4 else after
        rows.append([str(_TABLE_KEYS[title](record)) for title in shown] + paired)
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    note = "; ".join([*shared, "accuracy in % with 95 % Wilson interval"])
    return "\n".join([*lines, "", note[0].upper() + note[1:] + ".", ""])


_TABLE_KEYS: dict[str, Callable[[RobustnessRecord], Any]] = {
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
