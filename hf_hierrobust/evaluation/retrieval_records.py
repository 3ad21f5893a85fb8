"""Records of image-text retrieval: R@1, 5, 10 in both directions on one set, clean or under one attack."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..files import read_json, write_atomically
from ..options import check_counts, check_whole
from .json_record import JsonRecord, RecordFormatError
from .metrics import wilson_interval
from .record_checks import check_public, checked_attack, to_plain
from .records import environment_versions

SCHEMA, SCHEMA_VERSION = "hf_hierrobust.retrieval_records", 1
ATTACKED = {"nothing": (), "image": ("attack",), "text": ("text_attack",), "joint": ("attack", "text_attack")}
"""What is attacked, and which constants a record of it has."""
DIRECTIONS = {"image_to_text": "num_images", "text_to_image": "num_captions"}
"""Direction, and the number of its queries."""


@dataclass(frozen=True, kw_only=True)
class RetrievalRecord(JsonRecord):
    """Recalls of one model on one set of captioned images.

    Under an attack a query counts only if it is also found when clean, and under the joint attack only if
    each of the two attacks alone leaves it: recalls never rise with the attack.

    Attributes:
        attacked: "nothing", "image", "text" or "joint": pixels attacked against attacked captions.
        num_images, num_captions: queries of either direction; equal captions are one.
        sample_ids: see `describe_samples`; with ``captions_sha256`` over the captions.
        recalls: {"image_to_text": {"1", "5", "10"}, "text_to_image": {…}}, fractions of the queries.
        intervals: likewise [low, high], 95 % Wilson, computed from the counts.
        attack, text_attack: constants of what is attacked, None of what is not.

    Raises:
        ValueError: a value contradicts another one or its own meaning; the message names the field.
    """

    model: str
    objective: str
    dataset: str
    split: str
    attacked: str
    num_images: int
    num_captions: int
    sample_ids: dict[str, Any]
    recalls: dict[str, dict[str, float]]
    seed: int
    attack: dict[str, Any] | None = None
    text_attack: dict[str, Any] | None = None
    model_hash: str | None = None
    intervals: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=environment_versions)
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    wall_seconds: float | None = None

    def __post_init__(self) -> None:
        for f in fields(self):
            object.__setattr__(self, f.name, to_plain(getattr(self, f.name), f.name))
        for name in ("model", "objective", "dataset", "split"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ValueError(f"{name}={getattr(self, name)!r} must be a non-empty string.")
        check_public("model", self.model)
        check_public("dataset", self.dataset)
        check_whole(seed=self.seed)
        check_counts(self, "num_images", "num_captions", least=2)
        if self.attacked not in ATTACKED:
            raise ValueError(f"attacked={self.attacked!r} must be one of {', '.join(ATTACKED)}.")
        for name in ("attack", "text_attack"):
            if (getattr(self, name) is not None) != (name in ATTACKED[self.attacked]):
                raise ValueError(
                    f"{name}={getattr(self, name)!r} does not go with attacked={self.attacked!r}."
                )
        if self.attack is not None:
            object.__setattr__(self, "attack", checked_attack(self.attack))
        if self.text_attack is not None and "name" not in self.text_attack:
            raise ValueError("text_attack lacks its name.")
        if self.sample_ids.get("count") != self.num_images or "captions_sha256" not in self.sample_ids:
            raise ValueError(f"sample_ids must count num_images={self.num_images} and hold captions_sha256.")
        if self.wall_seconds is not None and self.wall_seconds < 0:
            raise ValueError(f"wall_seconds={self.wall_seconds} must not be negative.")
        datetime.fromisoformat(self.created)
        found = {name: self._intervals(name, getattr(self, count)) for name, count in DIRECTIONS.items()}
        if self.intervals and self.intervals != found:
            raise ValueError("intervals are not those of the recalls; leave them out.")
        object.__setattr__(self, "intervals", found)

    def _intervals(self, direction: str, count: int) -> dict[str, list[float]]:
        if set(self.recalls) != set(DIRECTIONS) or set(self.recalls[direction]) != {"1", "5", "10"}:
            raise ValueError(f"recalls={self.recalls!r} must hold 1, 5 and 10 of {', '.join(DIRECTIONS)}.")
        values = [self.recalls[direction][k] for k in ("1", "5", "10")]
        for k, value in zip((1, 5, 10), values):
            if not 0 <= value <= 1 or abs(value * count - round(value * count)) > 1e-6:
                raise ValueError(f"recalls.{direction}.{k}={value} is no fraction of {count} queries.")
        if values != sorted(values):
            raise ValueError(f"recalls.{direction}={values} must not fall from 1 to 5 to 10.")
        return {k: list(wilson_interval(round(v * count), count)) for k, v in zip(("1", "5", "10"), values)}


def save_retrieval(path: str | Path, records: Iterable[RetrievalRecord]) -> None:
    """Write records as one JSON document; a crash in between leaves the previous file whole."""
    document = {"schema": SCHEMA, "version": SCHEMA_VERSION, "records": [r.to_dict() for r in records]}
    write_atomically(path, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def load_retrieval(path: str | Path) -> list[RetrievalRecord]:
    """Read what `save_retrieval` wrote, validating every record again.

    Raises:
        RecordFormatError: another schema or version, or an invalid record, with its place.
        FileFormatError, FileNotFoundError: no JSON, no such file.
    """
    document = read_json(path)
    found = (document.get("schema"), document.get("version")) if isinstance(document, dict) else (None, None)
    if found != (SCHEMA, SCHEMA_VERSION) or not isinstance(document.get("records"), list):
        raise RecordFormatError(f"{Path(path).name} is no list of {SCHEMA!r}, version {SCHEMA_VERSION}.")
    records = []
    for index, entries in enumerate(document["records"]):
        try:
            records.append(RetrievalRecord.from_dict(entries))
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise RecordFormatError(f"{Path(path).name}, record {index}: {error}") from error
    return records
