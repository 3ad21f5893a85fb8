"""Output directories: refuse to mix runs, find the last checkpoint that is whole and can be gone on from."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import logging

from ..digests import describe_differences, differences
from ..modeling.side_files import PROMPT_FILE, SIDE_FILE
from ..seals import SEAL_FILE, SealError, check_files, read_seal, seal
from .leftovers import WEIGHTS, checkpoints, left_by_a_run
from .run_state import RUN_FILE, read_run_state
from .settings import IN_OPTIMIZER_STATE

logger = logging.get_logger(__name__)

_NOT_FINITE = "holds NaN or infinite weights"
_STATE_FILES = ("optimizer.pt", "scheduler.pt", "trainer_state.json")


class OutputDirError(FileExistsError):
    """The output directory holds another run."""


class ResumeError(ValueError):
    """A run cannot go on from where it stopped, or not under the settings it was asked for."""


class NonFiniteLossError(FloatingPointError):
    """Training stopped because a loss term was NaN or infinite."""


def non_finite_loss(output_dir: str | Path, step: int, what: str) -> NonFiniteLossError:
    """The error that names what was not finite, and the way back."""
    checkpoint = last_good_checkpoint(output_dir)
    return NonFiniteLossError(
        f"loss is not finite at step {step}: {what}. Last good checkpoint: "
        f"{checkpoint or 'none was saved yet'}. Lower learning_rate or max_grad_norm and resume from it"
    )


def seal_checkpoint(folder: str | Path, settings: dict, changes: list[dict]) -> None:
    """Finish a checkpoint: its files are on the disk, with digests, and say under which settings they came.

    Args:
        settings: see `settings.training_settings`.
        changes: ``{"step", "changed"}`` of every resume under other settings than before.
    """
    seal(folder, {"settings": settings, "changes": changes})


def unseal(folder: str | Path) -> None:
    """Before a checkpoint is written over: until it is sealed again it counts as unfinished."""
    (Path(folder) / SEAL_FILE).unlink(missing_ok=True)


def fault_of(folder: str | Path) -> str | None:
    """Why a training cannot go on from a checkpoint, in words that name the file; None if it can.

    Sizes and digests are those of the moment of saving, weights must be finite (a step that overflows is
    saved before the next loss shows it), and optimizer, scheduler and generators must be there.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return "there is no such folder"
    try:
        files = read_seal(folder)["files"]
        needed = [*_STATE_FILES, "config.json", "model.safetensors", SIDE_FILE]
        if (missing := [name for name in needed if name not in files]) or not _has_generators(files):
            if "model.safetensors" in files and "optimizer.pt" in missing:
                return "it holds weights, but no optimizer and generator states (save_only_model=True)"
            return f"{(missing or ['rng_state.pth'])[0]} was not saved with it"
        if broken := _not_finite(folder):
            return broken
        check_files(folder, files)
    except SealError as error:
        return str(error)
    return None


def finished_training(output_dir: str | Path) -> bool:
    """Whether the directory itself holds the final weights of a training, whole; a warning says if not."""
    state = read_run_state(output_dir)
    if state is None or not state.reached("trained"):
        return False
    if fault := state.fault_in(output_dir, state.weights):
        logger.warning_once(f"the final weights in {output_dir} are passed over: {fault}")
    return fault is None


def last_good_checkpoint(output_dir: str | Path) -> Path | None:
    """The newest checkpoint that is whole; a warning says for each newer one which file is at fault."""
    for path in reversed(checkpoints(output_dir)):
        fault = fault_of(path)
        if fault is None:
            return path
        logger.warning_once(f"{path} is passed over: {fault}")
    return None


def prepare_output_dir(
    output_dir: str | Path, *, resume: bool | str | None = False, overwrite: bool = False
) -> str | None:
    """Decide how a run starts, before anything expensive happens; nothing is written or deleted.

    Args:
        resume: True to go on from the last good checkpoint, or the path of one.
        overwrite: accept what an earlier run left; `remove_earlier_run` deletes it when the new one starts.

    Returns:
        The checkpoint to resume from, ``output_dir`` itself if its training is finished, or None for a fresh
        start.

    Raises:
        OutputDirError: the directory holds a run and neither option was given.
        ResumeError: there is something trained, but none of it can be gone on from; says why.
        FileNotFoundError: ``resume`` names a checkpoint that is not there or not whole.
        ValueError: the weights of the checkpoint that ``resume`` names are not finite.
    """
    output_dir = Path(output_dir)
    if isinstance(resume, str):
        if fault := fault_of(resume):
            if fault.endswith(_NOT_FINITE):
                raise ValueError(
                    f"resume_from_checkpoint={resume!r} {_NOT_FINITE}: resume from an earlier one"
                )
            raise FileNotFoundError(
                f"resume_from_checkpoint={resume!r} is not a whole checkpoint: {fault}. Name another, or "
                "say true for the newest whole one of output_dir"
            )
        if Path(resume).resolve().parent == output_dir.resolve():
            return resume
    elif resume and finished_training(output_dir):
        return str(output_dir)
    elif resume and (checkpoint := last_good_checkpoint(output_dir)) is not None:
        return str(checkpoint)
    left = left_by_a_run(output_dir)
    if overwrite or not left:
        return resume if isinstance(resume, str) else None
    if resume is True:
        _refuse_lost_work(output_dir)
        return None
    names = ", ".join(path.name for path in left[:3])
    raise OutputDirError(
        f"output_dir={str(output_dir)!r} already holds a run ({names}): --resume_from_checkpoint true "
        "goes on with it, --overwrite_output_dir true replaces it, or choose another directory"
    )


def check_settings(folder: str | Path, asked: dict, accept_changes: bool) -> list[dict]:
    """The history of changed settings of a run that goes on, after comparing what it was with what is asked.

    Args:
        folder: sealed checkpoint, or output directory of a finished training.
        asked: settings of the run that wants to go on.
        accept_changes: go on although they differ.

    Returns:
        Earlier changes, and the one that happens now, if any: ``{"step", "changed": {name: [old, new]}}``.

    Raises:
        ResumeError: they differ and ``accept_changes`` is off; or they are part of the optimizer's state, so
            that others would be ignored.
    """
    folder = Path(folder)
    facts = read_seal(folder, SEAL_FILE if (folder / SEAL_FILE).exists() else RUN_FILE)
    found = differences(facts["settings"], asked)
    if not found:
        return facts["changes"]
    words = describe_differences(found)
    if not accept_changes:
        raise ResumeError(
            f"{folder} was trained under other settings ({words}): ask for the same ones, or go on "
            "with --resume_with_changes true, which the card then states"
        )
    if fixed := sorted(found.keys() & IN_OPTIMIZER_STATE):
        raise ResumeError(
            f"{folder}: {', '.join(fixed)} cannot change at a resume, since the saved optimizer state "
            f"was made with them ({words}): start a new run with model_name_or_path={str(folder)!r}"
        )
    logger.warning(f"going on from {folder} under other settings ({words})")
    step = json.loads((folder / "trainer_state.json").read_text())["global_step"]
    return [*facts["changes"], {"step": step, "changed": found}]


def _refuse_lost_work(output_dir: Path) -> None:
    """A start from step 0 is right only where nothing was finished yet; say what stands against it.

    Raises:
        ResumeError: checkpoints or final weights exist that the new start would stand beside.
    """
    state = read_run_state(output_dir)
    for path in reversed(checkpoints(output_dir)):
        unfinished = state is not None and not (path / SEAL_FILE).exists()
        if unfinished or not any((path / name).exists() for name in ("model.safetensors", SEAL_FILE)):
            continue  # killed while saving
        raise ResumeError(
            f"resume_from_checkpoint=True cannot go on from {path}: {fault_of(path)}. Nothing was deleted; "
            f"its weights, if whole, can start a new run (model_name_or_path={str(path)!r}, another "
            "output_dir), --overwrite_output_dir true starts this one again"
        )
    unfinished = state is not None and state.files.get(WEIGHTS, ()) is None  # killed while saving the end
    if (output_dir / WEIGHTS).exists() and not unfinished:
        raise OutputDirError(
            f"output_dir={str(output_dir)!r} already holds a run, its weights, without a whole checkpoint to "
            "resume from: --overwrite_output_dir true replaces it, or choose another directory"
        )


def _has_generators(files: dict) -> bool:
    """One generator state a rank; a plain run's file has no number."""
    return any(re.fullmatch(r"rng_state(_\d+)?\.pth", name) for name in files)


def _not_finite(path: Path) -> str | None:
    """The file whose weights are not finite; the head's constants are NaN before it is calibrated."""
    for name in ("model.safetensors", PROMPT_FILE):
        if (path / name).is_file():
            try:
                with safe_open(path / name, framework="pt") as file:
                    keys = file.keys()  # no mapping: the file itself cannot be iterated
                    if not all(bool(torch.isfinite(file.get_tensor(key)).all()) for key in keys):
                        return f"{name} {_NOT_FINITE}"
            except (SafetensorError, OSError, ValueError) as error:
                return f"{name} cannot be read ({error})"
    return None
