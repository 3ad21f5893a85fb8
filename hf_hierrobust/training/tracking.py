"""Experiment trackers: what `Trainer` reports to them, checked early, and the pictures it does not know of.

Losses, terms and accuracies reach every tracker that `transformers` supports as numbers. TensorBoard, wandb
and trackio also get the perturbation as a picture. No tracker is imported that ``report_to`` does not name.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments, logging
from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    TensorBoardCallback,
    TrackioCallback,
    WandbCallback,
)
from transformers.trainer_callback import CallbackHandler

if TYPE_CHECKING:
    from .step import RobustStep

logger = logging.get_logger(__name__)
PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",), "trackio": ("trackio",)}
"""Of the trackers that have an extra, any of which will do."""
TAG = "train/perturbation"
EXAMPLES = 4
"""Images of a batch that are shown."""
REACH = 0.25
"""How far from mid-grey the largest change is drawn."""
SIDE = 128
"""Smaller images are enlarged, and of larger ones every n-th pixel is shown, to about this side."""


def check_trackers(report_to: list[str]) -> None:
    """Find a tracker that is unknown or not installed before anything is loaded.

    Raises:
        ValueError: a name that `transformers` does not know.
        ImportError: a package of this project's extras is missing.
    """
    for name in report_to:
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise ValueError(f"report_to={name!r} is unknown: choose among {known}, or none")
        packages = PACKAGES.get(name)
        if packages and not any(find_spec(package) for package in packages):
            raise ImportError(
                f"report_to={name!r} needs a package that is missing: pip install 'hf_hierrobust[{name}]'"
            )


def tracking_callbacks(trainer: Trainer) -> list[TrainerCallback]:
    """The pictures, where something is attacked; a warning before trackio publishes anything."""
    args, step = trainer.args, trainer.step
    if "trackio" in args.report_to and args.trackio_static_space_id is not False:
        _warn_of_spaces(args)
    return [] if step.attack is None else [PerturbationPictures(step, trainer.callback_handler)]


def _warn_of_spaces(args: TrainingArguments) -> None:
    live = f"logs into the Space {args.trackio_space_id!r} and " if args.trackio_space_id else ""
    if not live and not args.push_to_hub:
        return
    seen = "private" if args.hub_private_repo else "public, unless your organisation's are private"
    logger.warning(
        f"report_to='trackio' {live}deploys a static Space with this training's logs and pictures ({seen}): "
        "hub_private_repo=true makes it private, trackio_static_space_id=false leaves it out"
    )


class PerturbationPictures(TrainerCallback):
    """Logs clean image, perturbation and adversarial image of the training attack, one row an image.

    After the first step, at every evaluation and after the last step, of the batch that was just trained on:
    no image is attacked for it, and no random number drawn.

    Args:
        step: whose ``examples`` are shown.
        handler: holds the trackers' own callbacks.
    """

    def __init__(self, step: RobustStep, handler: CallbackHandler):
        self.step, self.handler, self._last = step, handler, None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        self._last = None
        tracked = any(isinstance(one, tuple(LOGGERS)) for one in self.handler.callbacks)
        self.step.num_examples = EXAMPLES if tracked and state.is_world_process_zero else 0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        ends = control.should_training_stop or state.global_step >= state.max_steps
        if self._last is None or control.should_evaluate or ends:
            self._show(state.global_step)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        if control.should_evaluate:
            self._show(state.global_step)

    def _show(self, step: int) -> None:
        if self._last == step or self.step.examples is None:
            return
        self._last = step
        picture, caption = perturbation_rows(*self.step.examples)
        for callback in self.handler.callbacks:
            for kind, log in LOGGERS.items():
                if isinstance(callback, kind):
                    log(callback, picture, caption, step)


def perturbation_rows(pixels: Tensor, adversarial: Tensor) -> tuple[np.ndarray, str]:
    """Clean image, perturbation around mid-grey and adversarial image, side by side, one row an image.

    Args:
        pixels, adversarial: (B, 3, H, W) in [0, 1].

    Returns:
        (height, width, 3) uint8 with a white line between images, and what is shown in words.
    """
    pixels, adversarial = (x.detach().float().cpu() for x in (pixels, adversarial))
    change = adversarial - pixels
    largest = float(change.abs().max())
    factor = max(1, math.floor(REACH / largest + 1e-3)) if largest else 1
    longest = max(pixels.shape[2:])
    fewer, more = max(1, round(longest / SIDE)), max(1, round(SIDE / longest))
    columns = [
        F.pad(
            x[..., ::fewer, ::fewer].repeat_interleave(more, 2).repeat_interleave(more, 3), [2] * 4, value=1
        )
        for x in (pixels, 0.5 + factor * change, adversarial)
    ]
    rows = torch.cat(list(torch.cat(columns, dim=3)), dim=1)
    picture = (rows.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return (
        picture,
        f"clean, perturbation × {factor} around grey (at most {255 * largest:.3g}/255), adversarial",
    )


def _to_tensorboard(callback: TensorBoardCallback, picture: np.ndarray, caption: str, step: int) -> None:
    if callback.tb_writer is not None:
        callback.tb_writer.add_image(TAG, picture, step, dataformats="HWC")
        callback.tb_writer.add_text(f"{TAG}_shown", caption, step)


def _to_wandb(callback: WandbCallback, picture: np.ndarray, caption: str, step: int) -> None:
    import wandb

    wandb.log({TAG: wandb.Image(picture, caption=caption), "train/global_step": step})


def _to_trackio(callback: TrackioCallback, picture: np.ndarray, caption: str, step: int) -> None:
    import trackio

    trackio.log({TAG: trackio.Image(picture, caption=caption), "train/global_step": step})


LOGGERS = {TensorBoardCallback: _to_tensorboard, WandbCallback: _to_wandb, TrackioCallback: _to_trackio}
