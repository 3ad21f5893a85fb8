"""What records, cards, figures and files call things, and what a name may hold where it enters."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import Path, PureWindowsPath

MACHINE_PATH = re.compile(r"^(/|~|\.{1,2}(/|\\|$)|[A-Za-z]:[\\/]|\\\\|file:)")
LONGEST_NAME, LONGEST_TEXT = 200, 2000
"""Characters of a name (of a class, node or tree) and of a sentence (a template, a source, a licence)."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,94}/[A-Za-z0-9_][\w.-]{0,95}(?<![.-])", re.ASCII)
_FILE_UNSAFE = re.compile(r'[/\\:*?"<>|]|^[.\s]|[.\s]$')
# Control characters, half surrogates, line and paragraph separators; and the marks that reorder text on
# screen, with which a name could pass for another one.
_HIDDEN = {"Cc", "Cs", "Zl", "Zp"}
_REORDERING = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# The directories of an absolute path inside a sentence. A slash after a word or another slash, or one of two,
# is of a fraction (4/255), a relative path or a URL, and stays.
_DIRECTORIES = re.compile(
    r"(?:file:/+|(?<![\w/.~\\])(?!//)(?:/|(?:~|[A-Za-z]:)[/\\]))"  # where it starts
    r"(?:[^\s/\\|,;:'\"`()]+[/\\])+"  # all but its last part
)


def check_text(argument: str, text: object, longest: int = LONGEST_TEXT) -> None:
    """Text on one line, without control characters or marks that reorder it, and not endless.

    Names reach prompts, file names, cards and figures: what they may hold is decided where they enter.

    Args:
        argument: what to call it in the message.
        longest: characters allowed.

    Raises:
        ValueError: it is no such text.
    """
    if not isinstance(text, str):
        raise ValueError(f"{argument}={text!r} must be text, not {type(text).__name__}")
    if len(text) > longest:
        raise ValueError(
            f"{argument}={text[:40]!r}… has {len(text)} characters: at most {longest} are allowed"
        )
    # What is printable holds none of them: most texts are done here.
    if not text.isprintable() and (char := next(filter(_hidden, text), None)):
        raise ValueError(
            f"{argument}={text[:80]!r} holds the control character U+{ord(char):04X}: take it out"
        )


def _hidden(char: str) -> bool:
    return unicodedata.category(char) in _HIDDEN or char in _REORDERING


def check_name(argument: str, name: object, *, file: bool = False) -> None:
    """A name is text with something to read in it; with ``file`` it also becomes part of a file's name.

    Raises:
        ValueError: as `check_text`; an empty name; with ``file`` a path separator or another character that
            file names cannot hold everywhere, or a dot or blank at either end.
    """
    check_text(argument, name, LONGEST_NAME)
    if not name.strip():
        raise ValueError(f"{argument}={name!r} is empty: give it a name")
    if file and _FILE_UNSAFE.search(name):
        raise ValueError(
            f'{argument}={name!r} names files, so it must not hold any of / \\ : * ? " < > | nor begin or '
            "end with a dot or blank"
        )


def check_template(argument: str, template: object) -> None:
    """A prompt template is one line of text with ``{}`` exactly once, for the class name.

    Raises:
        ValueError: it is none.
    """
    check_text(argument, template)
    if template.count("{}") != 1:
        raise ValueError(f"{argument}={template!r} must contain '{{}}' exactly once, for the class name")


def check_hub_id(argument: str, name: object, example: str) -> None:
    """The id of a model or data set on the Hub, with its namespace.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(name, str) or not _HUB_ID.fullmatch(name) or "--" in name or ".." in name:
        raise ValueError(f"{argument}={name!r} is no id on the Hub, such as {example}")


def public_name(name_or_path: str) -> str:
    """What a record calls a model or data set: a Hub id stays, a local path shrinks to its last part.

    Files can have names that no record should hold: control characters become ``?``, long ones end in ``…``.
    """
    name = "".join("?" if _hidden(char) else char for char in _last_part(name_or_path))
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def source_name(source: str) -> str:
    """What data are called that nobody named: a file's stem, so that two files of a folder differ.

    A stem that only says which split it is has its folder's name before it. A folder keeps its name, a glob
    has its folder's, a Hub id stays.
    """
    path = Path(source).expanduser()
    if re.search(r"[*?\[]", path.name):
        return path.absolute().parent.name
    if path.is_dir():
        return path.absolute().name
    if not path.suffix or (not path.exists() and not MACHINE_PATH.match(source) and source.count("/") == 1):
        return source
    path = path.absolute()
    split = path.stem.lower() in ("train", "training", "test", "testing", "val", "valid", "validation")
    return f"{path.parent.name}-{path.stem}" if split else path.stem


def _last_part(name_or_path: str) -> str:
    if re.match(r"[A-Za-z]:[\\/]|\\\\", name_or_path):  # a path of Windows, whatever runs here
        return PureWindowsPath(name_or_path).name or "root"
    try:
        path = Path(name_or_path.removeprefix("file:")).expanduser()
        if MACHINE_PATH.match(name_or_path) or path.exists() or name_or_path.count("/") > 1:
            return path.resolve().name or "root"
    except (OSError, ValueError):  # too long for a path, or with a zero byte: none of this machine
        return re.split(r"[/\\]", name_or_path)[-1]
    return name_or_path


def without_directories(text: str) -> str:
    """A sentence in which every absolute path of a machine is shrunk to its last part."""
    return _DIRECTORIES.sub("", text)


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
