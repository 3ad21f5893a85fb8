"""Output directories: refuse to mix runs, find the last checkpoint that is whole."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import torch
from safetensors import safe_open

from ..modeling.side_files import ADAPTER_DIR, PROMPT_FILE, SIDE_FILE, expected_files

_WEIGHTS = ("config.json", "model.safetensors", SIDE_FILE)
_NEEDED = (*_WEIGHTS, "optimizer.pt", "scheduler.pt", "trainer_state.json")
_RUN_MARKS = (*_WEIGHTS, PROMPT_FILE, ADAPTER_DIR, "results.json", "trainer_state.json")


class OutputDirError(FileExistsError):
    """The output directory holds another run."""


class NonFiniteLossError(FloatingPointError):
    """Training stopped because a loss term was NaN or infinite."""


def non_finite_loss(output_dir: str | Path, step: int, what: str) -> NonFiniteLossError:
    """The error that names what was not finite, and the way back."""
    checkpoint = last_good_checkpoint(output_dir)
    return NonFiniteLossError(
        f"loss is not finite at step {step}: {what}. Last good checkpoint: "
        f"{checkpoint or 'none was saved yet'}. Lower learning_rate or max_grad_norm and resume from it"
    )


def checkpoints(output_dir: str | Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    found = [p for p in Path(output_dir).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", p.name)]
    return sorted(found, key=lambda p: int(p.name.split("-")[1]))


def last_good_checkpoint(output_dir: str | Path) -> Path | None:
    """The newest checkpoint with all its files and finite weights.

    A run killed while saving leaves a torn one behind; a step that overflows is saved before the next loss
    shows it.
    """
    found = reversed(checkpoints(output_dir))
    return next((path for path in found if _is_whole(path) and _is_finite(path)), None)


def _is_whole(path: Path) -> bool:
    # One generator state a rank; a plain run's file has no number.
    if not all((path / name).is_file() for name in _NEEDED) or not any(path.glob("rng_state*.pth")):
        return False
    try:
        json.loads((path / "trainer_state.json").read_text())
        facts = json.loads((path / "config.json").read_text()).get("hier_robust") or {}
    except json.JSONDecodeError:
        return False
    return all((path / name).is_file() for name in expected_files(facts))


def _is_finite(path: Path) -> bool:
    """Whether all weights are finite; the head's constants are NaN before it is calibrated."""
    for name in ("model.safetensors", PROMPT_FILE):
        if (path / name).is_file():
            with safe_open(path / name, framework="pt") as file:
                keys = file.keys()  # no mapping: the file itself cannot be iterated
                if not all(bool(torch.isfinite(file.get_tensor(key)).all()) for key in keys):
                    return False
    return True


def prepare_output_dir(
    output_dir: str | Path, *, resume: bool | str | None = False, overwrite: bool = False
) -> str | None:
    """Decide how a run starts, before anything expensive happens; nothing is written or deleted.

    Args:
        resume: True to go on from the last good checkpoint, or the path of one.
        overwrite: accept what an earlier run left; `remove_earlier_run` deletes it when the new one starts.

    Returns:
        The checkpoint to resume from, or None for a fresh start.

    Raises:
        OutputDirError: the directory holds a run and neither option was given, or a finished one without
            a checkpoint to resume from.
        FileNotFoundError: ``resume`` names a checkpoint that is not there or not whole.
        ValueError: the weights of the checkpoint that ``resume`` names are not finite.
    """
    output_dir = Path(output_dir)
    if isinstance(resume, str):
        if not _is_whole(Path(resume)):
            raise FileNotFoundError(f"resume_from_checkpoint={resume!r} is not a whole checkpoint")
        if not _is_finite(Path(resume)):
            raise ValueError(
                f"resume_from_checkpoint={resume!r} holds NaN or infinite weights: resume from an earlier one"
            )
        return resume
    if resume and (checkpoint := last_good_checkpoint(output_dir)) is not None:
        return str(checkpoint)
    left = _left_by_a_run(output_dir)
    if resume:  # a run killed before its first checkpoint was whole starts again
        left = [path for path in left if path not in checkpoints(output_dir)]
    if left and not overwrite:
        names = ", ".join(path.name for path in left[:3])
        way = "--resume_from_checkpoint true goes on with it"
        if resume:
            way = "without a whole checkpoint to resume from"
        raise OutputDirError(
            f"output_dir={str(output_dir)!r} already holds a run ({names}): {way}, "
            "--overwrite_output_dir true replaces it, or choose another directory"
        )
    return None


def remove_earlier_run(output_dir: str | Path) -> None:
    """Delete checkpoints, weights and results of an earlier run; other files stay."""
    for path in _left_by_a_run(Path(output_dir)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _left_by_a_run(output_dir: Path) -> list[Path]:
    return checkpoints(output_dir) + [p for name in _RUN_MARKS if (p := output_dir / name).exists()]
