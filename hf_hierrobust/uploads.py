"""What of a folder may leave this machine: one allow-list and one upload, for every way of pushing.

Only files that are named here are sent: never `.env`, notes, logs, pickles or another run's figures. Their
JSON is freed of this machine's paths, and a README on the other side keeps its owner's text.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .naming import file_stem, public_name
from .readme import merge

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, HfApi

README = "README.md"
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
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_SHOWN = re.compile(r"\]\((figures/[\w.-]+\.(?:png|svg|pdf))\)")
_PATH = re.compile(r"^(?:file:/+|~[\w.-]*[\\/]|/(?:[^/\s]+/)+|[A-Za-z]:[\\/]|\\\\)")
NEVER = ("training_args.bin",)
"""Pickles that another tool may have left in the repository; deleted there."""


def public_files(folder: str | Path) -> list[str]:
    """The files of a folder that may be uploaded, as sorted paths relative to it.

    Beside `FILES`: numbered parts of the weights, the class trees that ``config.json`` names, and the figures
    that the card shows.
    """
    root = Path(folder)
    names = {name for name in FILES if (root / name).is_file()}
    names |= {path.name for path in root.glob("model-*.safetensors") if _SHARD.fullmatch(path.name)}
    names |= {name for name in _tree_files(root) if (root / name).is_file()}
    if README in names:
        shown = _SHOWN.findall((root / README).read_text(encoding="utf-8", errors="replace"))
        names |= {name for name in shown if (root / name).is_file()}
    return sorted(names)


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
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    if revision is not None and not revision.startswith("refs/pr"):
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    there = set(api.list_repo_files(repo_id, revision=revision))
    prefix = f"{path_in_repo}/" if path_in_repo else ""
    operations: list = []
    for name in public_files(folder):
        content: Path | bytes = Path(folder) / name
        if name in SETTINGS:
            content = _public_settings(content)
        elif name == README:
            if prefix:
                continue
            other = api.hf_hub_download(repo_id, README, revision=revision) if README in there else None
            other = other and Path(other).read_text(encoding="utf-8", errors="replace")
            content = merge(content.read_text(encoding="utf-8"), other).encode()
        operations.append(CommitOperationAdd(path_in_repo=prefix + name, path_or_fileobj=content))
    operations += [CommitOperationDelete(path_in_repo=name) for name in NEVER if name in there]
    return api.create_commit(
        repo_id=repo_id,
        operations=operations,
        commit_message=commit_message,
        commit_description=commit_description,
        revision=revision,
        create_pr=create_pr,
    )


def _public_settings(path: Path) -> bytes:
    raw = path.read_bytes()
    try:
        value = json.loads(raw)
    except ValueError:
        return raw
    public = without_paths(value)
    return raw if public == value else (json.dumps(public, indent=2, ensure_ascii=False) + "\n").encode()
