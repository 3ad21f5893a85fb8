"""Seals: a JSON file, written last, that says which files a folder holds, how long they are and their digest.

A process can be killed, or a machine lose power, between any two bytes. Sizes and digests are taken, and the
files flushed to the disk, before the seal appears; so a sealed folder whose files still agree with its seal
is exactly what was saved.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from .files import write_atomically

SEAL_FILE = "checkpoint.json"
SCHEMA = "hf_hierrobust.seal"
VERSION = 1


class SealError(ValueError):
    """A folder has no readable seal, or a file of it is not what was saved; the message names the file."""


def seal(folder: str | Path, facts: dict, files: dict | None = None, file: str = SEAL_FILE) -> None:
    """Write some facts and the sizes and digests of files into ``folder/file``.

    Args:
        facts: JSON values.
        files: from `measure`; by default all files of the folder, measured now.
    """
    folder = Path(folder)
    if files is None:
        found = (path for path in folder.rglob("*") if path.is_file() and path.name != file)
        files = measure(folder, (path.relative_to(folder).as_posix() for path in found))
    document = {"schema": SCHEMA, "version": VERSION, **facts, "files": files}
    document["digest"] = _own_digest(document)
    write_atomically(folder / file, json.dumps(document, indent=1) + "\n")
    _flush(folder)


def measure(folder: str | Path, names: Iterable[str]) -> dict[str, list]:
    """``{name: [bytes, SHA-256]}`` of some files of a folder, after flushing them to the disk."""
    folder, files = Path(folder), {}
    for name in sorted(names):
        _flush(folder / name)
        files[name] = [(folder / name).stat().st_size, _sha256(folder / name)]
    for place in {(folder / name).parent for name in files}:
        _flush(place)
    return files


def read_seal(folder: str | Path, file: str = SEAL_FILE) -> dict:
    """The facts and files of a seal, without a look at the files.

    Raises:
        SealError: no seal, or one that is cut off or of another kind.
    """
    path = Path(folder) / file
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SealError(f"{file} is missing: saving was not finished") from None
    except (OSError, ValueError) as error:
        raise SealError(f"{file} cannot be read ({error})") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise SealError(f"{file} is no seal of this package")
    if document.pop("digest", None) != _own_digest(document):
        raise SealError(f"{file} is not what was saved: its own digest differs")
    return document


def check_files(folder: str | Path, files: dict) -> None:
    """Compare files with the sizes and digests of their seal.

    Raises:
        SealError: the first file that is missing, shorter or longer, or changed.
    """
    for name, (size, digest) in files.items():
        path = Path(folder) / name
        try:
            found = path.stat()
        except OSError:
            raise SealError(f"{name} is missing") from None
        if found.st_size != size:
            raise SealError(f"{name} holds {found.st_size} of the {size} bytes that were saved")
        if _digest(str(path), found.st_size, found.st_mtime_ns) != digest:
            raise SealError(f"{name} is not what was saved: its SHA-256 differs")


def _sha256(path: str | Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@functools.lru_cache(maxsize=1024)
def _digest(path: str, size: int, changed: int) -> str:
    """SHA-256 of a file, read once for each size and time of change: a start looks twice."""
    return _sha256(path)


def _own_digest(document: dict) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _flush(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk, where the file system can."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        os.close(handle)
