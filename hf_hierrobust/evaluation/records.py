"""Robustness records: one measured accuracy with everything needed to read, repeat or doubt it, as JSON."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..files import FileFormatError, read_json, write_atomically
from .record_checks import (
    check_flags,
    check_identity,
    checked_accuracies,
    checked_attack,
    checked_base,
    to_plain,
)

__all__ = [
    "RecordFormatError",
    "RobustnessRecord",
    "describe_samples",
    "environment_versions",
    "load_records",
    "records_hash",
    "save_records",
]

SCHEMA = "hf_hierrobust.robustness_records"
SCHEMA_VERSION = 1
VOLATILE = frozenset({"created", "wall_seconds"})
"""Fields that say when and how long something was measured; all others are the same when it is repeated."""


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
        cost: {"forwards", "backwards"} of the classifier per image, attacks and verdicts together.
        checks: zero_gradient_fraction, robust_after_… for each attack, and the verdict ``masking``:
            "none seen" or "suspected: …".
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
    cost: dict[str, float] | None = None
    checks: dict[str, Any] = field(default_factory=dict)
    flags: dict[str, str] | None = None

    def __post_init__(self) -> None:
        for f in fields(self):
            object.__setattr__(self, f.name, to_plain(getattr(self, f.name), f.name))
        check_identity(vars(self))
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


def records_hash(records: Iterable[RobustnessRecord]) -> str:
    """SHA-256 of what records measured, in their order: of everything but the fields of `VOLATILE`."""
    entries = [{k: v for k, v in r.to_dict().items() if k not in VOLATILE} for r in records]
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


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
        document = read_json(path)
    except FileFormatError as error:
        raise RecordFormatError(f"{error}; it may have been cut off.") from error
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
