"""What a training says about itself as it starts: parameters, batch, and processes that did not come."""

from __future__ import annotations

import os
from collections.abc import Mapping

from transformers import TrainingArguments, logging

from ..objectives import Objective

logger = logging.get_logger(__name__)

_WORLD_SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")


def announce(objective: Objective, trained: Mapping[str, int], args: TrainingArguments) -> None:
    """One line on what trains and on how many images a step, one more if processes are missing."""
    counts = ", ".join(f"{group} {count:,}" for group, count in trained.items())
    logger.warning(
        f"{objective.name}: training {counts} parameters ({sum(trained.values()):,} in all), "
        f"{batch_in_words(args)}"
    )
    if (missing := missing_processes(args.world_size)) is not None:
        logger.warning(missing)


def batch_in_words(args: TrainingArguments) -> str:
    """The effective batch and its factors: ``"128 images a step (32 x 2 accumulated x 2 processes)"``."""
    factors = [str(args.train_batch_size)]
    if args.gradient_accumulation_steps > 1:
        factors.append(f"{args.gradient_accumulation_steps} accumulated")
    if args.world_size > 1:
        factors.append(f"{args.world_size} processes")
    size = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    return f"{size} images a step" + (f" ({' x '.join(factors)})" if len(factors) > 1 else "")


def missing_processes(running: int, environment: Mapping[str, str] | None = None) -> str | None:
    """A sentence if the launcher was asked for more processes than train together, else None.

    ``accelerate launch --cpu --num_processes 2`` starts one: it then sets the address where several would
    meet, but no number of them. MPI launchers start all, of which each would train alone.
    """
    environment = os.environ if environment is None else environment
    for name in _WORLD_SIZES:
        asked = environment.get(name, "")
        if asked.isdigit() and int(asked) > running:
            return (
                f"{name}={asked}: the launcher started {asked} processes, but {running} train together and "
                "the others each train alone: start with torchrun or accelerate launch"
            )
    accelerated = "ACCELERATE_MIXED_PRECISION" in environment and "MASTER_ADDR" in environment
    if running == 1 and accelerated and "WORLD_SIZE" not in environment:
        return (
            "accelerate launch was asked for several processes, but one is running, with the batch of one: "
            "on CPUs start them with torchrun --nproc_per_node N, on GPUs with accelerate launch --multi_gpu"
        )
    return None
