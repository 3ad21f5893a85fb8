"""Records as JSON objects: what every kind of record does alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any, Self


class RecordFormatError(ValueError):
    """A records file is not JSON, is of another schema, or a record lacks or has unexpected fields."""


class JsonRecord:
    """Base of the record dataclasses."""

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON types; `from_dict` turns it back into an equal record."""
        return asdict(self)

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> Self:
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
