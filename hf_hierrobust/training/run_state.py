"""``run.json``: how far a run has come, under which settings, and what it wrote beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from transformers import logging

from ..seals import SealError, check_files, measure, read_seal, seal

logger = logging.get_logger(__name__)

RUN_FILE = "run.json"
STAGES = ("training", "trained", "measured", "reported")


@dataclass
class RunState:
    """What ``run.json`` says.

    Args:
        settings: see `settings.training_settings`.
        changes: settings that changed at a resume, ``{"step", "changed": {name: [old, new]}}``.
        stage: what is finished, one of `STAGES`; "training" when nothing is.
        weights: names of the files that hold the final model and the history of its training.
        measured: for "base" and "trained", digest of what its records measured.
        files: ``{name: [bytes, SHA-256]}`` of files in the output directory; None in place of the pair while
            a file is being written.
    """

    settings: dict
    changes: list[dict] = field(default_factory=list)
    stage: str = "training"
    weights: list[str] = field(default_factory=list)
    measured: dict[str, str] = field(default_factory=dict)
    files: dict[str, list | None] = field(default_factory=dict)

    def reached(self, stage: str) -> bool:
        """Whether this stage is finished."""
        return STAGES.index(self.stage) >= STAGES.index(stage)

    def announce(self, output_dir: str | Path, names: Iterable[str]) -> None:
        """Say that these files are about to be written: they are the run's own, whole or torn."""
        self.files |= dict.fromkeys(names)
        self.write(output_dir)

    def finish(self, output_dir: str | Path, names: Iterable[str], stage: str | None = None) -> None:
        """Say that these files are written and, with them, that a stage is finished."""
        self.files |= measure(output_dir, names)
        self.stage = stage or self.stage
        self.write(output_dir)

    def fault_in(self, output_dir: str | Path, names: Iterable[str]) -> str | None:
        """Why these files are not what the run wrote, or None; names the first one at fault."""
        try:
            for name in names:
                if self.files.get(name) is None:
                    return f"{name} was not finished"
                check_files(output_dir, {name: self.files[name]})
        except SealError as error:
            return str(error)
        return None

    def write(self, output_dir: str | Path) -> None:
        facts = asdict(self)
        seal(output_dir, facts, facts.pop("files"), file=RUN_FILE)


def read_run_state(output_dir: str | Path) -> RunState | None:
    """The state of the run in a directory; None where there is none or, with a warning, an unreadable one."""
    if not (Path(output_dir) / RUN_FILE).exists():
        return None
    try:
        found = read_seal(output_dir, RUN_FILE)
        return RunState(**{name: found[name] for name in RunState.__dataclass_fields__})
    except (SealError, KeyError) as error:
        logger.warning_once(f"{Path(output_dir) / RUN_FILE} is passed over: {error}")
        return None
