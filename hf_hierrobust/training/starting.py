"""How a training begins, goes on and is kept: the part of the trainer that decides what happens to files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn
from transformers import TrainerState, logging
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import rotate_checkpoints

from ..adapters.fingerprints import fingerprints
from ..seals import read_seal
from .argument_checks import NothingTrainedError, check_optimizer, check_steps, check_writable
from .checkpoints import (
    ResumeError,
    check_settings,
    last_good_checkpoint,
    prepare_output_dir,
    seal_checkpoint,
    unseal,
)
from .leftovers import remove_earlier_run, set_aside, step_of
from .run_state import RunState, read_run_state

if TYPE_CHECKING:
    from .arguments import RobustTrainingArguments

logger = logging.get_logger(__name__)


@dataclass
class Start:
    """Where a training starts, and what ``run.json`` says about it.

    Args:
        checkpoint: folder to go on from, the output directory itself if all is trained; None starts anew.
        state: settings, and their changes at this or an earlier resume.
    """

    checkpoint: str | None
    state: RunState

    @property
    def is_run(self) -> bool:
        """Whether it is the output directory itself, with the final weights."""
        return self.checkpoint is not None and self.state.reached("trained")

    def is_finished(self, max_steps: int) -> bool:
        """Whether all steps that are asked for are made; Trainer would make one more."""
        made = 0 if self.checkpoint is None or self.is_run else step_of(self.checkpoint)
        return self.is_run or 0 < max_steps <= made


def check_can_train(args: RobustTrainingArguments, model: nn.Module, dataset) -> None:
    """What can be known to fail before anything is measured or written.

    Raises:
        NothingTrainedError: no optimizer step would be made.
        ValueError, ImportError: optimizer or schedule cannot be built.
        OSError: ``output_dir`` cannot be written to.
    """
    if dataset is None:
        raise NothingTrainedError("train_dataset is missing: there is nothing to train on")
    check_optimizer(args, model, check_steps(args, dataset))
    check_writable(args.output_dir)


def begin(
    args: RobustTrainingArguments, settings: dict, resume: bool | str | None, wait: Callable[[], None]
) -> Start:
    """Decide how a training starts, make room for it, and write ``run.json``.

    An earlier run is deleted only with ``args.overwrite_output_dir``; checkpoints that a resumed run passes
    over are moved to ``set_aside/``.

    Args:
        wait: returns when all processes are here: each has looked before the first one deletes or moves.

    Raises:
        OutputDirError, ResumeError, FileNotFoundError: see `prepare_output_dir` and `check_settings`.
    """
    output_dir = Path(args.output_dir)
    checkpoint = prepare_output_dir(output_dir, resume=resume, overwrite=args.overwrite_output_dir)
    changes = [] if checkpoint is None else check_settings(checkpoint, settings, args.resume_with_changes)
    state = read_run_state(output_dir)
    if checkpoint == str(output_dir):
        if changes == state.changes:
            return Start(checkpoint, state)
        # Final weights have no optimizer to go on with under the new settings.
        checkpoint = last_good_checkpoint(output_dir)
        if checkpoint is None:
            raise ResumeError(
                f"output_dir={str(output_dir)!r} holds a finished training and no checkpoint: it cannot go "
                f"on under other settings. Start a new run from it: model_name_or_path={str(output_dir)!r}"
            )
        checkpoint, changes = str(checkpoint), check_settings(checkpoint, settings, accept_changes=True)
    if checkpoint is not None and "data.pixels" not in settings:
        logger.warning(
            "training images read differently each time, beyond what the global generators of Python, NumPy "
            "and torch explain: this run will see others than an uninterrupted one. Let them draw from those"
        )
    wait()
    inside = checkpoint is not None and Path(checkpoint).resolve().parent == output_dir.resolve()
    anew = args.overwrite_output_dir and not inside
    known = RunState(settings) if state is None or anew else state
    state = RunState(settings, changes, measured=known.measured, files=known.files)
    if args.process_index == 0:
        if anew:
            remove_earlier_run(output_dir)
        set_aside(output_dir, newer_than=step_of(checkpoint) if inside else -1)
        output_dir.mkdir(parents=True, exist_ok=True)
        state.write(output_dir)
    wait()
    return Start(checkpoint, state)


def final_state(folder: str) -> TrainerState:
    """The history of a finished training, from its last checkpoint or its output directory."""
    logger.warning(f"{folder} is the end of a finished training: nothing is trained again")
    return TrainerState.load_from_json(str(Path(folder, TRAINER_STATE_NAME)))


def place_in_stream(checkpoint: str) -> tuple[int, int]:
    """Whole passes over a stream before a checkpoint, and batches of one process read in the pass after.

    A pass counts as many batches as the whole training, so its share of them is in the state's epoch.
    """
    state = TrainerState.load_from_json(str(Path(checkpoint, TRAINER_STATE_NAME)))
    accumulated = read_seal(checkpoint)["settings"]["gradient_accumulation_steps"]
    passes = int(state.epoch)
    return passes, round((state.epoch - passes) * state.max_steps * accumulated)


@contextmanager
def must_move(model: nn.Module, checkpoint: str | None) -> Iterator[None]:
    """Around a training: at its end, unless it went on from a checkpoint, some trained weight is another.

    Raises:
        NothingTrainedError: the data gave no batch, or all steps were made at a learning rate of 0.
    """

    def trained() -> dict[str, str]:
        return fingerprints({n: p for n, p in model.named_parameters() if p.requires_grad})

    before = trained() if checkpoint is None else None
    yield
    if before is not None and before == trained():
        raise NothingTrainedError(
            "training moved no weight: the data gave no batch, or every step had a learning rate of 0 "
            "(a warm-up starts there); nothing is saved as fine-tuned"
        )


@contextmanager
def saving(
    args: RobustTrainingArguments, run: RunState, state: TrainerState, wait: Callable[[], None]
) -> Iterator[None]:
    """Around Trainer's saving of a checkpoint: sealed once it is whole, and only then may older ones go."""
    folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
    if args.process_index == 0:
        unseal(folder)
    limit, args.save_total_limit = args.save_total_limit, None
    try:
        yield
    finally:
        args.save_total_limit = limit
    wait()  # every process writes its own generator state
    if args.process_index == 0:
        seal_checkpoint(folder, run.settings, run.changes)
        rotate_checkpoints(args.output_dir, limit, state.best_model_checkpoint, use_mtime=True)
