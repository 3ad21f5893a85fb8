"""Output directories: refuse to mix runs, find the last checkpoint that is whole."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

_NEEDED = ("config.json", "model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json")
_RUN_MARKS = ("config.json", "model.safetensors", "results.json", "trainer_state.json")


class OutputDirError(FileExistsError):
    """The output directory holds another run."""


class NonFiniteLossError(FloatingPointError):
    """Training stopped because a loss term was NaN or infinite."""


def checkpoints(output_dir: str | Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    found = [p for p in Path(output_dir).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", p.name)]
    return sorted(found, key=lambda p: int(p.name.split("-")[1]))


def last_whole_checkpoint(output_dir: str | Path) -> Path | None:
    """The newest checkpoint with all its files; a run killed while saving leaves a torn one behind."""
    for path in reversed(checkpoints(output_dir)):
        if all((path / name).is_file() for name in _NEEDED):
            try:
                json.loads((path / "trainer_state.json").read_text())
            except json.JSONDecodeError:
                continue
            return path
    return None


def prepare_output_dir(
    output_dir: str | Path, *, resume: bool | str = False, overwrite: bool = False
) -> str | None:
    """Decide how a run starts, before anything expensive happens.

    Args:
        resume: True to go on from the last whole checkpoint, or the path of one.
        overwrite: delete what an earlier run left.

    Returns:
        The checkpoint to resume from, or None for a fresh start.

    Raises:
        OutputDirError: the directory holds a run and neither option was given.
        FileNotFoundError: ``resume`` names a checkpoint that is not there or not whole.
    """
    output_dir = Path(output_dir)
    if isinstance(resume, str):
        if last_whole_checkpoint(Path(resume).parent) is None or not (Path(resume) / _NEEDED[-1]).is_file():
            raise FileNotFoundError(f"resume_from_checkpoint={resume!r} is not a whole checkpoint")
        return resume
    if resume:
        checkpoint = last_whole_checkpoint(output_dir)
        return None if checkpoint is None else str(checkpoint)
    left = checkpoints(output_dir) + [p for name in _RUN_MARKS if (p := output_dir / name).exists()]
    if left and not overwrite:
        raise OutputDirError(
            f"output_dir={str(output_dir)!r} already holds a run ({', '.join(p.name for p in left[:3])}): "
            "pass --resume_from_checkpoint true to go on with it, --overwrite_output_dir to replace it, "
            "or choose another directory"
        )
    for path in left:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return None
