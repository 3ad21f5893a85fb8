"""What of a folder may leave this machine: one allow-list and one upload, for every way of pushing.

Only files that are named here are sent: never `.env`, notes, logs, pickles or another run's figures. Their
JSON is freed of this machine's paths, and a README on the other side keeps its owner's text.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .naming import file_stem, public_name, without_directories
from .readme import merge
from .stock_files import SHARD

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, HfApi

README = "README.md"
EVAL_RESULTS = ".eval_results/robustness.yaml"
"""What the Hub's leaderboards read, beside the card's model-index."""
SETTINGS = (
    "config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "tokenizer_config.json",
    "adapter/adapter_config.json",
    "results.json",
)
"""JSON in which a string may be a path of this machine."""
FILES = (
    README,
    EVAL_RESULTS,
    *SETTINGS,
    "model.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "hier_head.safetensors",
    "visual_prompt.safetensors",
    "adapter/adapter_model.safetensors",
)
_SHOWN = re.compile(r"\]\((figures/[\w.-]+\.(?:png|svg|pdf))\)")
_PATH = re.compile(r"^(?:file:/+|~[\w.-]*[\\/]|/(?:[^/\s]+/)+|[A-Za-z]:[\\/]|\\\\)")
_TOKEN = re.compile(rb"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{30,}")
NEVER = ("training_args.bin",)
"""Pickles that another tool may have left in the repository; deleted there."""
_WEIGHTS = re.compile(
    r"model\.safetensors(\.index\.json)?|model-\d{5}-of-\d{5}\.safetensors|hier_head\.safetensors|"
    r"visual_prompt\.safetensors|adapter/adapter_(config\.json|model\.safetensors)"
)
"""Weights of an earlier push, which would load with or before the new ones: deleted where these lack them."""


def public_files(folder: str | Path) -> list[str]:
    """The files of a folder that may be uploaded, as sorted paths relative to it.

    Beside `FILES`: numbered parts of the weights, the class trees that ``config.json`` names, and the figures
    that the card shows.
    """
    root = Path(folder)
    names = {name for name in FILES if (root / name).is_file()}
    names |= {path.name for path in root.glob("model-*.safetensors") if SHARD.fullmatch(path.name)}
    names |= {name for name in _tree_files(root) if (root / name).is_file()}
    if README in names:
        shown = _SHOWN.findall((root / README).read_text(encoding="utf-8", errors="replace"))
        names |= {name for name in shown if (root / name).is_file()}
    return sorted(names)


def check_private(folder: str | Path, name: str) -> None:
    """Refuse to publish a link to somewhere else, or a file with an access token of the Hub in it.

    Raises:
        ValueError: names the file.
    """
    root = Path(folder)
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise ValueError(
            f"{name} is a link that leads out of {root.name}, to what nobody meant to publish: copy it here"
        )
    if path.suffix in (".safetensors", ".png", ".pdf"):
        return
    text = path.read_bytes()
    own = (os.environ.get("HF_TOKEN") or "").encode()
    if _TOKEN.search(text) or (len(own) > 8 and own in text):
        raise ValueError(f"{name} holds an access token of the Hub: take it out, and revoke the token")


def _tree_files(root: Path) -> list[str]:
    try:
        facts = json.loads((root / "config.json").read_text(encoding="utf-8")).get("hier_robust") or {}
        return [f"{file_stem(str(tree['name']))}.tree.json" for tree in facts.get("trees") or ()]
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return []


def without_paths(value: Any) -> Any:
    """JSON values with every absolute path of a machine shrunk to its last part."""
    if isinstance(value, dict):
        return {key: without_paths(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [without_paths(entry) for entry in value]
    return public_name(value) if isinstance(value, str) and _PATH.match(value) else value


def upload(
    api: HfApi,
    repo_id: str,
    folder: str | Path,
    *,
    path_in_repo: str = "",
    commit_message: str,
    commit_description: str | None = None,
    revision: str | None = None,
    create_pr: bool | None = None,
) -> CommitInfo:
    """Send `public_files` of a folder to an existing model repository, in one commit.

    Unchanged files are skipped. A README there keeps what its owner wrote, see `readme.merge`.

    Args:
        path_in_repo: folder of the repository; no card goes there.
        revision: branch, made where it is not there.

    Raises:
        ValueError: see `check_private`.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    if revision is not None and not revision.startswith("refs/pr") and not create_pr:
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    there = set(api.list_repo_files(repo_id, revision=revision))
    prefix = f"{path_in_repo}/" if path_in_repo else ""
    operations: list = []
    for name in public_files(folder):
        check_private(folder, name)
        content: Path | bytes = Path(folder) / name
        if name in SETTINGS or name.endswith(".tree.json"):
            content = _public_settings(content)
        elif name == README:
            if prefix:
                continue
            other = api.hf_hub_download(repo_id, README, revision=revision) if README in there else None
            other = other and Path(other).read_text(encoding="utf-8", errors="replace")
            content = merge(content.read_text(encoding="utf-8"), other).encode()
        operations.append(CommitOperationAdd(path_in_repo=prefix + name, path_or_fileobj=content))
    sent = {operation.path_in_repo for operation in operations}
    old = {
        path
        for path in there - sent
        if path.startswith(prefix) and _WEIGHTS.fullmatch(path.removeprefix(prefix))
    }
    gone = sorted(old | set(NEVER) & there)
    operations += [CommitOperationDelete(path_in_repo=name) for name in gone]
    return api.create_commit(
        repo_id=repo_id,
        operations=operations,
        commit_message=commit_message,
        commit_description=commit_description,
        revision=revision,
        create_pr=create_pr,
    )


def _public_settings(path: Path) -> bytes:
    """The file's bytes, or its JSON without this machine's paths."""
    raw = path.read_bytes()
    try:
        value = json.loads(raw)
    except ValueError:
        return raw
    if path.name.endswith(".tree.json") and isinstance(value, dict):  # its nodes may look like paths
        said = {key: value[key] for key in ("source", "licence") if isinstance(value.get(key), str)}
        public = value | {key: without_directories(text) for key, text in said.items()}
    else:
        public = without_paths(value)
    return raw if public == value else (json.dumps(public, indent=2, ensure_ascii=False) + "\n").encode()
