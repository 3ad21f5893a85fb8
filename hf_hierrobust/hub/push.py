"""Uploads a finished run to the Hub: the stock checkpoint, its card and its results, and nothing private."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import logging

from ..files import FileFormatError, read_json, write_atomically
from ..stock_files import SETTINGS, WEIGHTS, check_settings, one_line, tensor_names, weight_files
from ..uploads import README, check_private, public_files, upload

if TYPE_CHECKING:
    from concurrent.futures import Future

    from huggingface_hub import CommitInfo, HfApi

logger = logging.get_logger(__name__)

PLAIN_MODEL_TYPES = ("clip", "siglip")

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")

# Prefixes and fragments of tensor names that stock CLIPModel/SiglipModel do not have.
FOREIGN_TENSOR_MARKS = ("hier_head.", "visual_prompt.", "base_model.", "lora_")


def check_folder(folder: str | Path) -> Path:
    """Checks that `folder` is what stock transformers loads from a repository root, and returns it as a path.

    Raises:
        FileNotFoundError: config, weights or a part of them, processor or card is missing.
        ValueError: not a stock CLIP or SigLIP checkpoint, whole and sharded weights or merged weights and an
            adapter side by side, tensors that the stock class does not have, settings that name code, a link
            that leads out of the folder, or a file that holds an access token.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"folder={str(folder)!r} is not a directory")
    _require(root, ("config.json",), "save the model there with save_pretrained(folder)")
    try:
        config = read_json(root / "config.json")
    except FileFormatError as error:
        raise ValueError(f"folder={str(folder)!r}: {str(error).removeprefix(f'{root}/')}") from error
    model_type = config.get("model_type") if isinstance(config, dict) else None
    if model_type not in PLAIN_MODEL_TYPES or "auto_map" in config:
        raise ValueError(
            f"folder={str(folder)!r}: config.json has model_type={model_type!r}"
            f"{' and auto_map' if 'auto_map' in config else ''}, but only plain checkpoints of type "
            f"{' or '.join(PLAIN_MODEL_TYPES)} load without custom code; save the model with save_pretrained"
        )
    for name in SETTINGS:
        if (root / name).is_file():
            check_settings(root / name)
    _check_weights(root)
    processor = "save it there with processor.save_pretrained(folder)"
    _require(root, ("processor_config.json", "preprocessor_config.json"), processor)
    _require(root, ("tokenizer.json", "vocab.json", "spiece.model"), processor)
    _require(root, (README,), "write it with hf_hierrobust.hub.write_card(folder, facts)")
    for name in public_files(root):
        check_private(root, name)
    return root


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str = "Upload robust CLIP checkpoint",
) -> CommitInfo:
    """Creates the model repository if needed and uploads `folder` to one of its branches in one commit.

    Uploaded is what `uploads.public_files` lists: the files stock transformers loads, the card, the side
    files, the trees, the records, the card's figures and a LoRA adapter in its own subfolder. Everything
    else stays at home, unchanged files are not resent, and the repository's README keeps its owner's text.
    A push that breaks leaves the repository as it was; repeated, it sends what is still missing.

    Args:
        folder: Output folder of a training run, checked by `check_folder` before anything is sent.
        repo_id: `name` (in the token's namespace) or `namespace/name`.
        private: Visibility of a new repository; None is the namespace's default. An old one keeps its own.
        token: Write token; None takes `HF_TOKEN` or the token stored by `hf auth login`.
        revision: Branch, made where it is not there; None is `main`.
        create_pr: Open a pull request against that branch instead, as one must in repositories of others.
        commit_message: First line of the commit.

    Returns:
        `huggingface_hub.CommitInfo` with `oid`, `commit_url` and `pr_url`; of the last commit if nothing has
        changed.

    Raises:
        FileNotFoundError: From `check_folder`.
        ValueError: From `check_folder`, for a malformed `repo_id`, or because the repository already has an
            adapter at its root.
        huggingface_hub.errors.LocalTokenNotFoundError: No token anywhere (an `OSError`).
        PermissionError: The Hub refused the token, or the token may not write to `repo_id`.
        ConnectionError: The Hub cannot be reached, or broke off or failed in between.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    root = check_folder(folder)
    _check_repo_id(repo_id)
    api = HfApi(token=_find_token(token), library_name="hf_hierrobust")
    try:
        full_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        _check_remote(api, full_id, revision)
        return upload(
            api, full_id, root, commit_message=commit_message, revision=revision, create_pr=create_pr
        )
    except HTTPError as error:
        response = error.response if isinstance(error, HfHubHTTPError) else None
        if response is None or response.status_code >= 500:
            raise ConnectionError(
                f"the push to repo_id={repo_id!r} broke off ({one_line(error)}): the repository "
                "is as it was before, so push again"
            ) from error
        if response.status_code not in (401, 403):
            raise
        raise PermissionError(
            f"the Hub refused to write to repo_id={repo_id!r} (HTTP {error.response.status_code}): the token "
            "is invalid, expired or has no write access to this namespace. Make one with the role 'write' at "
            "https://huggingface.co/settings/tokens, then run `hf auth login` or set HF_TOKEN"
        ) from error


def push_checkpoint(
    api: HfApi,
    repo_id: str,
    checkpoint: str | Path,
    *,
    card: str | None = None,
    path_in_repo: str = "",
    revision: str | None = None,
    commit_message: str,
) -> Future[CommitInfo]:
    """Uploads a checkpoint of a run that goes on, by the same list as `push_folder`, in the background.

    The files are set aside first (as hard links where that works), so that neither the next save nor the
    deletion of old checkpoints can touch what is being sent. Optimizer and generator states are pickles and
    stay here.

    Args:
        card: the README to go with it; None sends none.
        path_in_repo: folder of the repository, as in `uploads.upload`.
    """
    stage = Path(tempfile.mkdtemp(prefix="hf_hierrobust-push-"))
    for name in public_files(checkpoint):
        (stage / name).parent.mkdir(exist_ok=True)
        try:
            os.link(Path(checkpoint) / name, stage / name)
        except OSError:  # another file system
            shutil.copy(Path(checkpoint) / name, stage / name)
    if card is not None:
        write_atomically(stage / README, card)
    job = api.run_as_future(
        upload,
        api,
        repo_id,
        stage,
        path_in_repo=path_in_repo,
        revision=revision,
        commit_message=commit_message,
    )

    def finish(job: Future) -> None:
        shutil.rmtree(stage, ignore_errors=True)
        if not job.cancelled() and (error := job.exception()) is not None:
            logger.warning(f"the push of {Path(checkpoint).name} to {repo_id} failed: {error}")

    job.add_done_callback(finish)
    return job


def _require(root: Path, names: tuple[str, ...], fix: str) -> None:
    if not any((root / name).is_file() for name in names):
        raise FileNotFoundError(f"folder={str(root)!r} has no {' or '.join(names)}: {fix}")


def _check_weights(root: Path) -> None:
    """Refuses weights that load wrongly or not at all, without reading more than the files' headers."""
    adapters = [name for name in ADAPTER_FILES if (root / name).is_file()]
    weights = weight_files(root)
    if adapters and weights:
        raise ValueError(
            f"folder={str(root)!r} has merged weights ({weights[0].name}) and an adapter "
            f"({', '.join(adapters)}) at its root: AutoModel would silently apply the adapter a second time "
            "on top of the merged weights. Move the adapter files to the subfolder 'adapter/'"
        )
    if not weights:
        found = f"only an adapter ({', '.join(adapters)})" if adapters else f"no {WEIGHTS}"
        raise FileNotFoundError(
            f"folder={str(root)!r} has {found}; the published checkpoint is stock CLIP: merge an adapter in "
            "fp32 (merge_and_unload) and save with save_pretrained"
        )
    for path in weights:
        names = tensor_names(path)
        foreign = [name for name in names if any(mark in name for mark in FOREIGN_TENSOR_MARKS)]
        if foreign:
            raise ValueError(
                f"folder={str(root)!r}: {path.name} has {len(foreign)} tensors unknown to stock CLIP (such "
                f"as {foreign[0]!r}); save with RobustCLIPModel.save_pretrained, which puts the head in "
                "hier_head.safetensors, and merge LoRA layers first"
            )


def _check_repo_id(repo_id: str) -> None:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(
            f"repo_id={repo_id!r} is not a Hub repository id; use 'name' or 'namespace/name' ({error})"
        ) from error


def _find_token(token: str | None) -> str:
    from huggingface_hub import get_token
    from huggingface_hub.errors import LocalTokenNotFoundError

    found = token or get_token()
    if not found:
        raise LocalTokenNotFoundError(
            "no Hugging Face token found, and a push needs one with write access: run `hf auth login`, set "
            "the environment variable HF_TOKEN, or pass token=..."
        )
    return found


def _check_remote(api: HfApi, repo_id: str, revision: str | None) -> None:
    """Refuses a repository where an adapter of an earlier push would be applied to the new weights."""
    if revision is not None and not api.revision_exists(repo_id, revision):
        revision = None  # it will start there
    left = sorted(set(api.list_repo_files(repo_id, revision=revision)) & set(ADAPTER_FILES))
    if left:
        raise ValueError(
            f"repo_id={repo_id!r} already has an adapter at its root ({', '.join(left)}), which AutoModel "
            "would silently apply on top of the merged weights; delete it there or push to another repository"
        )
