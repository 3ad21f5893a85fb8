"""Uploads of a training: of its checkpoints while it runs, of its result."""

from __future__ import annotations

from concurrent.futures import Future
from functools import partial
from pathlib import Path

from huggingface_hub import CommitInfo, HfApi
from transformers import TrainingArguments
from transformers.trainer_utils import HubStrategy
from transformers.utils.hub import PushInProgress

from ..hub import push_checkpoint, push_folder


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


def push_result(
    args: TrainingArguments,
    message: str,
    blocking: bool,
    *,
    token: str | None,
    revision: str | None,
    private: bool | None,
    create_pr: bool,
) -> CommitInfo | Future[CommitInfo]:
    """Upload the output directory; without ``blocking`` in the background.

    ``token``, ``revision`` and ``private`` are those of the arguments where they are None.
    """
    push = partial(
        push_folder,
        args.output_dir,
        args.hub_model_id or Path(args.output_dir).absolute().name,
        private=args.hub_private_repo if private is None else private,
        revision=revision or args.hub_revision,
        token=token or args.hub_token,
        create_pr=create_pr,
        commit_message=message,
    )
    return push() if blocking else HfApi().run_as_future(push)


def wants_push(args: TrainingArguments, pushes: PushInProgress | None) -> bool:
    """Whether a checkpoint is uploaded now; not while an earlier one is, unless ``hub_always_push``."""
    return args.hub_strategy != HubStrategy.END and (args.hub_always_push or not unfinished(pushes))


def unfinished(pushes: PushInProgress | None) -> list[Future]:
    """Earlier uploads that are still running."""
    return [] if pushes is None else [job for job in pushes.jobs if not job.done()]
