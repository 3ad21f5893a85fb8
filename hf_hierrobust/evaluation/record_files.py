"""Files of records: one JSON document or JSON lines, checked again on reading, merged without mixing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..files import FileFormatError, parse_json, read_json, read_lines, write_atomically
from .json_record import RecordFormatError
from .record_checks import DEFENDED, defence_constants
from .records import RobustnessRecord

SCHEMA = "hf_hierrobust.robustness_records"
LINE_SCHEMA = "hf_hierrobust.robustness_record"
SCHEMA_VERSION = 1


class RecordFile(NamedTuple):
    """What a file of records holds.

    Attributes:
        torn: None, or which line, the last one, is cut off; the records before it are whole.
    """

    path: Path
    records: list[RobustnessRecord]
    torn: str | None = None


def save_records(path: str | Path, records: Iterable[RobustnessRecord]) -> None:
    """Write records as one JSON document or, to a ``.jsonl``, one a line.

    A crash in between leaves the previous file whole.
    """
    if Path(path).suffix == ".jsonl":
        write_atomically(path, "".join(map(record_line, records)))
        return
    document = {"schema": SCHEMA, "version": SCHEMA_VERSION, "records": [r.to_dict() for r in records]}
    write_atomically(path, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def record_line(record: RobustnessRecord) -> str:
    """A record as a line of JSON lines, with its end."""
    document = {"schema": LINE_SCHEMA, "version": SCHEMA_VERSION, "record": record.to_dict()}
    return json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n"


def load_records(path: str | Path) -> list[RobustnessRecord]:
    """Read what `save_records` wrote, validating every record again.

    Raises:
        RecordFormatError: see `read_records`; a torn last line.
        FileNotFoundError: there is no such file.
    """
    found = read_records(path)
    if found.torn is not None:
        raise RecordFormatError(f"{found.torn}: delete it, or measure again what it was about.")
    return found.records


def read_records(path: str | Path) -> RecordFile:
    """Records of a file whose last line may be torn, as a process that was killed leaves it.

    Raises:
        RecordFormatError: broken JSON, another schema or version, or an invalid record, with its place.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    try:
        return _read_lines(path) if path.suffix == ".jsonl" else RecordFile(path, _read_document(path))
    except FileFormatError as error:
        raise RecordFormatError(f"{error}; it may have been cut off.") from error


def find_record_files(source: str | os.PathLike) -> list[Path]:
    """The files of records that a path stands for: itself, or those of a run, a suite, or a folder of these.

    A training run's ``base.json`` is left out: its records stand beside those of ``results.json``.

    Raises:
        FileNotFoundError: there is no such path, or no file of records below it.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"{str(source)!r} is no file of records and no folder")
    names = ("results.json", "results.jsonl", "records.jsonl")
    found = sorted(file for name in names for file in path.rglob(name)) + sorted(
        path.rglob("records/*.jsonl")
    )
    if not found:
        raise FileNotFoundError(
            f"{str(source)!r} holds no results.json, results.jsonl or records/*.jsonl: give a folder that "
            "evaluate, train or suite wrote, or the file itself"
        )
    return found


def merge_records(files: Sequence[RecordFile]) -> tuple[list[RobustnessRecord], list[str]]:
    """The records of several files, each measurement once, and what was left out, in sentences.

    Two records are of one measurement if they agree in all but their results and circumstances (see
    `measurement`). Of those with equal results the one that says most is kept; of unequal ones the newest,
    and a sentence says so.
    """
    kept: dict[str, tuple[RobustnessRecord, Path]] = {}
    notes, repeated = [], 0
    for file in files:
        if file.torn is not None:
            notes.append(f"{file.torn}: it is left out.")
        for record in file.records:
            key = measurement(record)
            if key not in kept:
                kept[key] = record, file.path
                continue
            other, where = kept[key]
            differ = _differences(record, other)
            if not differ:
                repeated += 1
                if _entries(record) > _entries(other):
                    kept[key] = record, file.path
                continue
            newer = record.created > other.created
            if newer:
                kept[key] = record, file.path
            behind = f" + {record.defence['name']}" if record.defence else ""
            notes.append(
                f"{record.model} on {record.dataset} ({record.level_name}, {record.classifier}{behind}, "
                f"{record.attack['name']}, eps {record.attack['eps_text']}) was measured twice with other "
                f"results ({', '.join(differ)}): {100 * other.robust_accuracy:.1f} % robust in {where.name}, "
                f"{100 * record.robust_accuracy:.1f} % in {file.path.name}; the newer one counts."
            )
    if repeated:
        notes.append(f"{repeated} records were there more than once, and count once.")
    return [record for record, _ in kept.values()], notes


def measurement(record: RobustnessRecord) -> str:
    """All that two records of one measurement share.

    These are model, images, classes, classifier, attack, the constants of a defence, and seed.
    """
    entries = {name: value for name, value in record.to_dict().items() if name not in _FOUND}
    entries["defence"] = defence_constants(record.defence)
    entries["sample_ids"] = {name: record.sample_ids.get(name) for name in ("how", "count", "sha256")}
    if record.tree_hash is not None:
        del entries["tree"]  # one tree, whatever it is called
    return json.dumps(entries, sort_keys=True)


_FOUND = frozenset(
    [
        *("clean_accuracy", "robust_accuracy", "transfer_rate", "intervals", "flags", "depth", "classes"),
        *("drift", "base", "versions", "created", "wall_seconds", "cost", "checks"),
    ]
)
"""Fields of a record that are found, or that say under which circumstances."""


def _differences(one: RobustnessRecord, other: RobustnessRecord) -> list[str]:
    """In which results two records of one measurement differ; what only one of them has is no difference."""
    pairs = {
        "clean": (one.clean_accuracy, other.clean_accuracy),
        "robust": (one.robust_accuracy, other.robust_accuracy),
        "verdicts": (one.flags, other.flags),
        "defence": tuple([(r.defence or {}).get(name) for name in DEFENDED] for r in (one, other)),
        "base": tuple(
            r.base and [r.base.get(name) for name in ("model", "clean_accuracy", "robust_accuracy")]
            for r in (one, other)
        ),
    }
    return [name for name, (a, b) in pairs.items() if None not in (a, b) and a != b]


def _entries(record: RobustnessRecord) -> int:
    """How much a record says beside its accuracies."""
    return sum(value not in (None, {}) for value in record.to_dict().values())


def _read_document(path: Path) -> list[RobustnessRecord]:
    document = read_json(path)
    _check_schema(document, SCHEMA, path.name)
    if not isinstance(document.get("records"), list):
        raise RecordFormatError(f"{path.name} has no list 'records'.")
    return [
        _record(entries, f"{path.name}, record {index}") for index, entries in enumerate(document["records"])
    ]


def _read_lines(path: Path) -> RecordFile:
    records, lines = [], read_lines(path)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path.name}, line {number}"
        try:
            document = parse_json(line, where)
        except FileFormatError:
            if number == len(lines) and not line.endswith("\n"):
                return RecordFile(path, records, f"{where}, the last, is cut off")
            raise
        _check_schema(document, LINE_SCHEMA, where)
        records.append(_record(document.get("record"), where))
    return RecordFile(path, records)


def _check_schema(document: object, schema: str, where: str) -> None:
    found = (document.get("schema"), document.get("version")) if isinstance(document, dict) else (None, None)
    if found != (schema, SCHEMA_VERSION):
        raise RecordFormatError(
            f"{where} has schema {found[0]!r} version {found[1]!r}; this release reads {schema!r} version "
            f"{SCHEMA_VERSION}."
        )


def _record(entries: object, where: str) -> RobustnessRecord:
    try:
        return RobustnessRecord.from_dict(entries)
    except (ValueError, TypeError, AttributeError) as error:
        raise RecordFormatError(f"{where}: {error}") from error
