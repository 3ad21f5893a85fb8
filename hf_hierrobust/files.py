"""Files: written whole or not at all, read within limits."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_JSON_BYTES, MAX_YAML_BYTES = 64 << 20, 256 << 10
MAX_YAML_NODES = 100_000
"""Keys and values of a YAML file with its aliases written out."""


class FileFormatError(ValueError):
    """A file does not hold what its format promises, or more than anyone would write; one line says which."""


def write_atomically(path: str | Path, content: str | bytes) -> Path:
    """Write text, as UTF-8, or bytes; a crash in between leaves the previous file whole. Parents are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


@contextmanager
def whole_folder(target: str | Path, last: Collection[str] = ()) -> Iterator[Path]:
    """A folder to write in, whose files come to the target once all are there; of an error nothing remains.

    Args:
        target: made, with its parents; other files that it holds stay.
        last: names of the files that move at the end, such as the one that a checkpoint is known by.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        yield aside
        target.mkdir(exist_ok=True)
        for file in sorted(aside.iterdir(), key=lambda file: file.name in last):
            os.replace(file, target / file.name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def read_json(path: str | Path) -> object:
    """What a JSON file holds.

    Raises:
        FileNotFoundError: there is no such file.
        FileFormatError: it is no JSON, repeats a key, nests too deeply or is larger than `MAX_JSON_BYTES`.
    """
    return parse_json(_read(path, MAX_JSON_BYTES, "JSON"), path)


def parse_json(text: str, path: str | Path) -> object:
    """What a JSON text holds; ``path`` is what messages call it.

    Raises:
        FileFormatError: it is no JSON, repeats a key or nests too deeply.
    """

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        return _without_repeats(pairs, path)

    try:
        return json.loads(text, object_pairs_hook=unique)
    except FileFormatError:
        raise
    except RecursionError:
        raise FileFormatError(f"{path} nests too deeply to be read") from None
    except ValueError as error:  # json's own, or a number of thousands of digits
        raise FileFormatError(f"{path} is not JSON: {error}") from error


def read_lines(path: str | Path, kind: str = "JSON lines") -> list[str]:
    """The lines of a UTF-8 file with their ends, so that a torn last one can be told.

    Raises:
        FileNotFoundError: there is no such file.
        FileFormatError: it is no UTF-8 text, or larger than `MAX_JSON_BYTES`.
    """
    # Not splitlines: a JSON string may hold a separator of its own, such as U+2028.
    *whole, last = _read(path, MAX_JSON_BYTES, kind).split("\n")
    return [f"{line}\n" for line in whole] + ([last] if last else [])


def read_yaml(path: str | Path) -> object:
    """What a YAML file holds, read by the safe loader.

    Raises:
        FileNotFoundError: there is no such file.
        FileFormatError: see `parse_yaml`.
    """
    return parse_yaml(_read(path, MAX_YAML_BYTES, "YAML"), path)


def parse_yaml(text: str, path: str | Path) -> object:
    """What a YAML text holds, read by the safe loader; ``path`` is what messages call it.

    Raises:
        FileFormatError: it is no YAML, repeats a key, nests too deeply, or is larger than `MAX_YAML_BYTES`,
            or than `MAX_YAML_NODES` with its aliases written out.
    """
    import yaml

    if len(text) > MAX_YAML_BYTES:
        raise FileFormatError(_too_large(path, MAX_YAML_BYTES, "YAML"))
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if _written_out(node, {}) > MAX_YAML_NODES:
                raise FileFormatError(
                    f"{path} holds over {MAX_YAML_NODES:,} values once its aliases are written out: write it "
                    "without them"
                )
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except FileFormatError as error:
        raise FileFormatError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    except RecursionError:
        raise FileFormatError(f"{path} nests too deeply to be read") from None
    except (yaml.YAMLError, ValueError) as error:
        raise FileFormatError(f"{path} is not YAML: {' '.join(str(error).split())}") from error


def _read(path: str | Path, limit: int, kind: str) -> str:
    with Path(path).open("rb") as stream:
        raw = stream.read(limit + 1)  # a pipe or device has no size to ask for
    if len(raw) > limit:
        raise FileFormatError(_too_large(path, limit, kind))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path} is not {kind}: it is no UTF-8 text ({error.reason})") from None


def _too_large(path: str | Path, limit: int, kind: str) -> str:
    return f"{path} is larger than {limit >> 10:,} KiB, the most that {kind} may have here"


def _without_repeats(pairs: list[tuple[str, object]], path: str | Path) -> dict[str, object]:
    """The object of these pairs; the last of two equal keys would otherwise win without a word."""
    out: dict[str, object] = {}
    for key, value in pairs:
        if key in out:
            raise FileFormatError(f"{path}: duplicate key {key[:80]!r}: list it once")
        out[key] = value
    return out


def _written_out(node, sizes: dict[int, int]) -> int:
    """Nodes of a YAML tree in which each alias counts as what it stands for, and a check of its keys."""
    if id(node) in sizes:
        if not sizes[id(node)]:
            raise FileFormatError("an alias contains itself: write the value out")
        return sizes[id(node)]
    sizes[id(node)] = 0  # not counted yet
    children: list = []
    if node.id == "mapping":
        seen = set()
        for key, _ in node.value:
            if key.id == "scalar" and key.value in seen:
                raise FileFormatError(f"duplicate key {key.value[:80]!r}: list it once")
            seen.add(key.value if key.id == "scalar" and key.value != "<<" else None)
        children = [part for pair in node.value for part in pair]
    elif node.id == "sequence":
        children = node.value
    sizes[id(node)] = 1 + sum(_written_out(child, sizes) for child in children)
    return sizes[id(node)]
