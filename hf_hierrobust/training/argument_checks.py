"""Wrong training arguments found before anything is loaded, measured or trained."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path

import torch
from torch import nn
from transformers import Trainer, TrainingArguments, get_scheduler

from ..options import check_counts, check_numbers


class NothingTrainedError(ValueError):
    """A training would make no optimizer step, or made none: there is nothing fine-tuned to publish."""


def check_training_numbers(args: TrainingArguments) -> None:
    """Rates, sizes, counts and seeds that `transformers` takes as they come; called before its own checks.

    Raises:
        ValueError: naming the argument and what it must be.
        NothingTrainedError: no step is asked for.
    """
    check_numbers(args, "learning_rate", "adam_epsilon", positive=True)
    check_numbers(args, "weight_decay", "max_grad_norm", "warmup_steps", "dataloader_num_workers")
    check_counts(
        args, "per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"
    )
    if args.scale_learning_rate is not None:
        check_numbers(args, "scale_learning_rate", positive=True)
    for name in ("adam_beta1", "adam_beta2"):
        value = getattr(args, name)
        if not (isinstance(value, (int, float)) and 0 <= value < 1):
            raise ValueError(f"{name}={value!r} must be a number in [0, 1)")
    for name in ("seed", "data_seed"):
        value = getattr(args, name)
        given = value is not None or name == "seed"
        if given and (isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32):
            raise ValueError(f"{name}={value!r} must be an integer from 0 to 2**32 - 1")
    for name in ("save_total_limit", "eval_accumulation_steps"):
        if getattr(args, name) is not None:
            check_counts(args, name)
    for kind in ("save", "eval", "logging"):
        strategy = getattr(args, f"{kind}_strategy")
        interval = getattr(args, f"{kind}_steps")
        if str(getattr(strategy, "value", strategy)) == "steps" and interval is not None:
            check_numbers(args, f"{kind}_steps", positive=True)
    _check_asked_steps(args)


def _check_asked_steps(args: TrainingArguments) -> None:
    if isinstance(args.max_steps, bool) or not isinstance(args.max_steps, int) or args.max_steps < -1:
        raise ValueError(
            f"max_steps={args.max_steps!r} must be a positive integer, or -1 to train for num_train_epochs"
        )
    if args.max_steps == 0:
        raise NothingTrainedError(
            "max_steps=0 trains nothing: give a positive number, or leave it out for num_train_epochs"
        )
    check_numbers(args, "num_train_epochs")
    if args.max_steps < 0 and args.num_train_epochs == 0:
        raise NothingTrainedError(
            "num_train_epochs=0 trains nothing: give a positive number, or evaluate the model as it is"
        )


def check_steps(args: TrainingArguments, dataset) -> int:
    """Optimizer steps of a training on this data set.

    Raises:
        NothingTrainedError: not one whole batch.
        ValueError: a stream, which does not know its length, without ``max_steps``; a warm-up that does not
            end.
    """
    if not hasattr(dataset, "__len__"):
        if args.max_steps < 0:
            raise ValueError(
                f"num_train_epochs={args.num_train_epochs:g}: a stream does not know how long an epoch is; "
                "give max_steps"
            )
        steps = args.max_steps
    else:
        whole = args.train_batch_size * args.world_size  # over all processes
        batches = len(dataset) / whole
        batches = math.floor(batches) if args.dataloader_drop_last else math.ceil(batches)
        if batches == 0:
            raise NothingTrainedError(
                f"dataloader_drop_last=True leaves no batch: {len(dataset)} training images are fewer than "
                f"the {whole} of a batch (per_device_train_batch_size={args.per_device_train_batch_size} on "
                f"{args.world_size} processes); take smaller batches, or keep the last one"
            )
        an_epoch = max(math.ceil(batches / args.gradient_accumulation_steps), 1)
        steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * an_epoch)
    if args.get_warmup_steps(steps) >= steps > 1:
        raise ValueError(
            f"warmup_steps={args.warmup_steps:g} does not end within the {steps} steps of this training: "
            "learning_rate would never be reached; a number below 1 is a fraction of all steps"
        )
    return steps


def check_optimizer(args: TrainingArguments, model: nn.Module, steps: int) -> None:
    """Build optimizer and schedule once on a number, so that what they refuse or lack shows before any work.

    Raises:
        ValueError: options that they do not take.
        ImportError: a package that they need is missing.
    """
    asked = f"optim={args.optim.value!r}"
    try:
        cls, options = Trainer.get_optimizer_cls_and_kwargs(args, model)
        if {"optimizer_dict", "model", "params"} & options.keys():
            return  # built from the model's own parameters
        optimizer = cls([torch.nn.Parameter(torch.zeros(1))], **options)
    except ImportError as error:
        raise ImportError(f"{asked} needs a package that is missing: {error}") from error
    except (TypeError, ValueError, RuntimeError) as error:
        with_options = f" with optim_args={args.optim_args!r}" if args.optim_args else ""
        raise ValueError(f"{asked}{with_options} cannot be built: {error}") from error
    try:
        get_scheduler(
            args.lr_scheduler_type,
            optimizer=optimizer,
            num_warmup_steps=args.get_warmup_steps(steps),
            num_training_steps=steps,
            scheduler_specific_kwargs=dict(args.lr_scheduler_kwargs or {}),
        )
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(
            f"lr_scheduler_type={args.lr_scheduler_type.value!r} with "
            f"lr_scheduler_kwargs={args.lr_scheduler_kwargs!r} cannot be built: {error}"
        ) from error


def check_writable(output_dir: str | Path) -> None:
    """Whether files can be written into a directory, existing or to be made, by making one without a name.

    Raises:
        OSError: saying which directory refuses, and why.
    """
    folder = Path(output_dir).absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(
            f"output_dir={str(output_dir)!r}: {folder} is a file; choose another directory"
        )
    try:
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError("permission denied")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise type(error)(
            f"output_dir={str(output_dir)!r} cannot be written to ({folder}: {error.strerror or error}): "
            "choose another directory"
        ) from error
