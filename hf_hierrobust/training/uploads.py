"""Uploads while a training runs."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

from huggingface_hub import HfApi
from transformers import TrainingArguments
from transformers.trainer_utils import HubStrategy
from transformers.utils.hub import PushInProgress

from ..hub import push_checkpoint


def push_progress(
    args: TrainingArguments, repo_id: str, checkpoint: str, card: str, step: int
) -> list[Future]:
    """Start to upload a checkpoint as the model, and where ``hub_strategy`` says so as a checkpoint too.

    Trainer would upload the output directory with whatever lies in it, and pickles with the checkpoint.
    """
    api = HfApi(token=args.hub_token, library_name="hf_hierrobust")
    target = {
        "repo_id": repo_id,
        "checkpoint": checkpoint,
        "revision": args.hub_revision,
        "commit_message": f"Training in progress, step {step}",
    }
    jobs = [push_checkpoint(api, card=card, **target)]
    if args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
        last = args.hub_strategy == HubStrategy.CHECKPOINT
        folder = "last-checkpoint" if last else Path(checkpoint).name
        jobs.append(push_checkpoint(api, path_in_repo=folder, **target))
    return jobs


def is_busy(pushes: PushInProgress | None) -> bool:
    """Whether earlier uploads are still running."""
    return pushes is not None and not pushes.is_done()
