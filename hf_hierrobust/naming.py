"""What records, cards, figures and files call things."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

MACHINE_PATH = re.compile(r"^(/|~|\.{1,2}(/|\\|$)|[A-Za-z]:[\\/]|\\\\|file:)")


def public_name(name_or_path: str) -> str:
    """What a record calls a model or data set: a Hub id stays, a local path shrinks to its last part."""
    path = Path(name_or_path).expanduser()
    if MACHINE_PATH.match(name_or_path) or path.exists() or name_or_path.count("/") > 1:
        return path.resolve().name or "root"
    return name_or_path


def level_name(level: int) -> str:
    """What everything calls a level of a class tree: "leaf", "superclass", "superclass 2", …"""
    return ("leaf", "superclass")[level] if level < 2 else f"superclass {level}"


def file_stem(name: str, length: int = 80) -> str:
    """A name as part of a file's name: no folder, no hidden file, nothing that a file system refuses.

    A name that had to change ends in six digits of its hash, so that two such names stay two files.
    """
    stem = re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII).strip("._-")[:length]
    if stem == name:
        return name
    return f"{stem or 'unnamed'}-{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:6]}"
