"""What runs of this package leave in an output directory; removing it and setting it aside."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from transformers import logging

from ..files import write_atomically
from ..modeling.side_files import ADAPTER_DIR, ADAPTER_FILES, PROMPT_FILE, SIDE_FILE
from ..objectives import OBJECTIVES
from ..readme import without_card
from ..seals import SEAL_FILE, SealError, read_seal
from ..uploads import README, public_files
from .run_state import RUN_FILE, read_run_state

logger = logging.get_logger(__name__)

SET_ASIDE = "set_aside"
WEIGHTS = "model.safetensors"

# Marks of a run: whoever finds one of these starts no other run there. ``run.json`` alone says that nothing
# was trained yet.
_MARKS = (
    "config.json",
    "model*.safetensors",
    SIDE_FILE,
    PROMPT_FILE,
    "results.json",
    "trainer_state.json",
)
# The model as it is saved, and the history of its training.
_MODEL = (
    "config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    SIDE_FILE,
    PROMPT_FILE,
    "trainer_state.json",
    "generation_config.json",
    *(f"{ADAPTER_DIR}/{name}" for name in (*ADAPTER_FILES, "README.md")),
    "processor_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "chat_template.*",
)
# All that transformers and this package write, in the output directory and in checkpoints.
_OWN = (
    *_MODEL,
    *_MARKS,
    SEAL_FILE,
    RUN_FILE,
    "base.json",
    "training_args.bin",
    "optimizer.*",
    "scheduler.pt",
    "scaler.pt",
    "rng_state*.pth",
    "runs/*/events.out.tfevents*",
    ".*.tmp",
    "*.tmp",
    "figures/.*.tmp",
)


def checkpoints(output_dir: str | Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    found = [p for p in Path(output_dir).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", p.name)]
    return sorted(found, key=step_of)


def step_of(checkpoint: str | Path) -> int:
    """Optimizer steps after which a checkpoint was saved, by its name."""
    return int(Path(checkpoint).name.split("-")[1])


def left_by_a_run(output_dir: Path) -> list[Path]:
    """What shows that the directory holds a run: checkpoints, weights, results."""
    marks = [path for pattern in (*_MARKS, ADAPTER_DIR) for path in sorted(output_dir.glob(pattern))]
    return checkpoints(output_dir) + marks


def model_files(folder: str | Path) -> list[str]:
    """Names of the files that hold a saved model: weights, head, prompt, adapter, processor, history."""
    folder = Path(folder)
    found = {path for pattern in _MODEL for path in folder.glob(pattern)}
    return sorted(path.relative_to(folder).as_posix() for path in found)


def remove_earlier_run(output_dir: str | Path) -> None:
    """Delete all that a run of this package left: checkpoints, weights, records, trees, figures, its card.

    Files that no run writes stay, in checkpoint folders as well; so does what others wrote into README.md.
    """
    output_dir = Path(output_dir)
    state = read_run_state(output_dir)
    if state is None and not left_by_a_run(output_dir):
        return
    written = {*public_files(output_dir), *(state.files if state is not None else ())} - {README}
    for folder in [*checkpoints(output_dir), *checkpoints(output_dir / SET_ASIDE)]:
        if not folder.is_symlink():
            _remove_own(folder, _sealed_files(folder))
            _remove_if_empty(folder)
    _remove_if_empty(output_dir / SET_ASIDE)
    card = output_dir / README
    if card.is_file():
        own = without_card(card.read_text(encoding="utf-8", errors="replace"), tags=OBJECTIVES.names())
        write_atomically(card, own) if own else card.unlink()
    _remove_own(output_dir, written)


def set_aside(output_dir: str | Path, newer_than: int) -> None:
    """Move checkpoints of later steps, damaged or of another branch, out of the way of a run that goes on.

    They would otherwise be written over, or count as the newest when old ones are deleted.
    """
    output_dir = Path(output_dir)
    for path in checkpoints(output_dir):
        if step_of(path) > newer_than:
            target, count = output_dir / SET_ASIDE / path.name, 1
            while target.exists():
                count += 1
                target = target.with_name(f"{path.name}-{count}")
            target.parent.mkdir(exist_ok=True)
            os.replace(path, target)
            logger.warning(f"{path} is set aside as {target}")


def _sealed_files(folder: Path) -> list[str]:
    try:
        return list(read_seal(folder)["files"])
    except SealError:
        return []


def _remove_own(folder: Path, also: Iterable[str]) -> None:
    """Delete the files of a folder that this package writes, and its own folders once they are empty.

    Args:
        also: names beside `_OWN`.
    """
    found = {path for pattern in _OWN for path in folder.glob(pattern)} | {folder / name for name in also}
    for path in found:
        inside = (
            folder.resolve() in path.parent.resolve().parents or path.parent.resolve() == folder.resolve()
        )
        if inside and (path.is_symlink() or path.is_file()):
            path.unlink()
    for path in sorted({path.parent for path in found} - {folder}, reverse=True):
        for place in (path, path.parent):
            if place != folder:
                _remove_if_empty(place)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
        folder.rmdir()
