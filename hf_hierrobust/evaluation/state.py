"""The verdicts of an evaluation on disk, from which the same command goes on after it was killed.

A directory holds ``manifest.json``, which says what is measured by its hashes, and ``verdicts-R.jsonl`` of
each process R: a line with a digest of its own for every stage, flushed to the disk before the next begins;
``notes-R.jsonl`` likewise, for what else an evaluation finds.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from transformers import logging

from ..digests import describe_differences, differences, digest_of, plain
from ..seals import SealError, read_seal, seal
from .shards import Shards
from .verdicts import LineError, Stage, StageLog, read_sealed, sealed_line

logger = logging.get_logger(__name__)

MANIFEST, VERDICTS, NOTES = "manifest.json", "verdicts-*.jsonl", "notes-*.jsonl"
ANSWERS = "answers"
"""Begin of the names of facts that are logits: they may differ by rounding."""


class StateError(ValueError):
    """A state directory holds another evaluation's verdicts, or nobody can tell whose."""


class EvaluationState:
    """A state directory.

    All processes open it together: the first one reads and writes the manifest for all. It is locked until it
    is left as a context: evaluations that know nothing of one another do not share a directory.

    Args:
        folder: made where it is missing.
        facts: what all sets have in common, JSON values by a name that a message can show.
        sets: names of the sets to be measured; further ones may come at a later start.

    Raises:
        StateError: the directory holds an evaluation of another set, or of what `open` refuses, or a torn
            manifest; another evaluation is at work on it.
        OSError: the directory cannot be made, read or written.
    """

    def __init__(self, folder: str | os.PathLike, facts: Mapping, sets: Sequence[str], shards: Shards):
        if not isinstance(folder, (str, os.PathLike)):
            raise TypeError(f"state_dir={folder!r} is a {type(folder).__name__}: give the path of a folder")
        self.folder, self.shards = Path(folder), shards
        self.facts, self.sets, self._lock = plain(facts), list(sets), None
        try:
            self._agree(self._start)
        except BaseException:
            self._unlock()
            raise
        lines, torn = _read(self.folder, VERDICTS, Stage.read)
        notes, torn_notes = _read(self.folder, NOTES, read_sealed)
        torn += torn_notes
        if torn and shards.rank == 0:
            logger.warning(
                f"{self.folder}: passed over {torn} torn or foreign line{'s' * (torn > 1)}; what was found "
                "there is attacked again"
            )
        self._found: dict[str, list[Stage]] = {}
        for line in dict.fromkeys(shards.gather(lines)):  # not every process need see the others' files
            scope, stage = Stage.read(line)
            self._found.setdefault(scope, []).append(stage)
        self._notes = [read_sealed(line) for line in dict.fromkeys(shards.gather(notes))]

    def __enter__(self) -> EvaluationState:
        return self

    def __exit__(self, *_) -> None:
        self._unlock()

    @staticmethod
    def is_in(folder: str | os.PathLike) -> bool:
        """Whether a directory holds the verdicts of an evaluation."""
        return (Path(folder) / MANIFEST).is_file()

    @staticmethod
    def clear(folder: str | os.PathLike) -> None:
        """Remove an evaluation from a directory; other files stay."""
        folder = Path(folder)
        for path in [*folder.glob(VERDICTS), *folder.glob(NOTES), folder / MANIFEST]:
            path.unlink(missing_ok=True)

    def open(self, name: str, facts: Mapping) -> str:
        """Compare a set with the manifest, or add it there.

        Args:
            facts: of the first process, as for the class; those of the others are not looked at.

        Returns:
            The scope of its verdicts, for `log`.

        Raises:
            StateError: names what differs from what the directory's verdicts are about.
        """
        return self._agree(lambda: self._compare(name, plain(facts)))

    def log(self, scope: str) -> StageLog:
        """The stages of a scope, those of earlier starts among them; new ones go to this process's file."""
        found = self._found.get(scope, [])
        if found and self.shards.rank == 0:
            logger.warning(f"{self.folder}: goes on after {len(found)} verdicts of an earlier start")
        return _FileLog(found, scope, self.folder / f"verdicts-{self.shards.rank}.jsonl")

    def notes(self, scope: str) -> Notes:
        """What else was found in a scope; new notes go to this process's file."""
        found = {note["key"]: note["value"] for note in self._notes if note.get("scope") == scope}
        return Notes(found, scope, self.folder / f"notes-{self.shards.rank}.jsonl")

    def _start(self) -> None:
        if not self.folder.is_dir() and self.folder.exists():
            raise NotADirectoryError(f"state_dir={str(self.folder)!r} is a file: give a directory")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self.folder)
        if not self._started():  # or killed before there was anything to lose
            seal(self.folder, {"common": self.facts, "sets": {}}, {}, MANIFEST)
        if not self.is_in(self.folder):
            self._refuse(f"holds verdicts but no {MANIFEST} that says what of")
        manifest = self._manifest()
        if gone := [name for name in manifest["sets"] if name not in self.sets]:
            self._refuse(f"holds verdicts on {gone[0]!r}, which is not to be measured now")
        self._refuse_differences(manifest["common"], self.facts)

    def _compare(self, name: str, facts: dict) -> str:
        manifest = self._manifest()
        if name in manifest["sets"] and self._started():
            self._refuse_differences(manifest["sets"][name], facts)
        else:
            manifest["sets"][name] = facts
            seal(self.folder, {key: manifest[key] for key in ("common", "sets")}, {}, MANIFEST)
        exact = {key: value for key, value in facts.items() if not key.startswith(ANSWERS)}
        return digest_of([self.facts, name, exact])

    def _started(self) -> bool:
        return any(path.stat().st_size for path in self.folder.glob(VERDICTS))

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _manifest(self) -> dict:
        try:
            manifest = read_seal(self.folder, MANIFEST)
            if not isinstance(manifest.get("sets"), dict) or not isinstance(manifest.get("common"), dict):
                raise SealError(f"{MANIFEST} says nothing about an evaluation")
        except SealError as error:
            self._refuse(str(error))
        return manifest

    def _refuse_differences(self, saved: Mapping, asked: Mapping) -> None:
        found = differences(saved, asked)
        found = {name: pair for name, pair in found.items() if not _close(name, *pair)}
        if found:
            self._refuse(f"holds verdicts of another evaluation ({describe_differences(found)})")

    def _refuse(self, why: str) -> None:
        raise StateError(
            f"state_dir={str(self.folder)!r} {why}: give another state_dir, or remove this one to start anew"
        )

    def _agree(self, act):
        """What the first process's act returns or raises, on every process."""
        said = []
        if self.shards.rank == 0:
            try:
                said = [json.dumps([act(), None])]
            except (StateError, OSError) as error:
                if self.shards.count == 1:
                    raise
                said = [json.dumps([None, str(error)])]
        (said,) = self.shards.gather(said)
        value, error = json.loads(said)
        if error is not None:
            raise StateError(error)
        return value


class _FileLog(StageLog):
    """Stages that are on the disk before the next one begins."""

    def __init__(self, stages: Iterable[Stage], scope: str, path: Path):
        super().__init__(stages)
        self._scope, self._path = scope, path

    def add(self, stage: Stage) -> None:
        super().add(stage)
        _append(self._path, stage.line(self._scope))


class Notes:
    """JSON values by a key, which an evaluation finds once; with a path on the disk at once.

    Args:
        found: those of earlier starts.
    """

    def __init__(self, found: Mapping | None = None, scope: str = "", path: Path | None = None):
        self.found, self._scope, self._path = dict(found or {}), scope, path

    def add(self, key: str, value: object) -> None:
        """Note a value."""
        self.found[key] = value
        if self._path is not None:
            _append(self._path, sealed_line({"scope": self._scope, "key": key, "value": value}))


def _locked(folder: Path) -> int | None:
    """A handle of a folder that no other process is at work on; None where there are no locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise StateError(
            f"state_dir={str(folder)!r} is in use by another evaluation: wait for it, or give another one"
        ) from None
    except OSError:  # a file system without locks
        os.close(handle)
        return None
    return handle


def _append(path: Path, line: str) -> None:
    with path.open("a+b") as stream:
        # After a torn line: on one of its own.
        torn = stream.tell() and not _ends_whole(stream)
        stream.write(b"\n" * torn + line.encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def _ends_whole(stream) -> bool:
    stream.seek(-1, os.SEEK_END)
    return stream.read(1) == b"\n"


def _read(folder: Path, pattern: str, read: Callable[[str], object]) -> tuple[list[str], int]:
    """The lines of all files of a kind whose digest agrees, and how many others there are."""
    whole, torn = [], 0
    for path in sorted(folder.glob(pattern)):
        with path.open("rb") as stream:
            for raw in stream:
                line = raw.decode(errors="replace").rstrip("\n")
                try:
                    read(line)
                    whole.append(line)
                except LineError:
                    torn += bool(line)
    return whole, torn


def _close(name: str, saved, asked) -> bool:
    """Whether two facts differ by no more than the rounding of another machine or number of threads."""
    if not name.startswith(ANSWERS) or not isinstance(saved, list) or not isinstance(asked, list):
        return False
    numbers = [abs(value) for value in (*saved, *asked) if not isinstance(value, str)]
    near = 1e-3 * max(numbers, default=0.0) + 1e-6
    return len(saved) == len(asked) and all(
        a == b if isinstance(a, str) or isinstance(b, str) else math.isclose(a, b, rel_tol=0, abs_tol=near)
        for a, b in zip(saved, asked)
    )
