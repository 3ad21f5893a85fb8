"""What may stand in the files of a stock checkpoint: plain settings and tensors, nothing that runs.

Read before anything is built from a folder or a repository of other people, and before a folder is pushed.
"""

from __future__ import annotations

import re
from pathlib import Path

from .files import FileFormatError, read_json

SETTINGS = ("config.json", "processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
"""Files in which transformers looks for classes to import."""
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_LIMITS = {
    "num_hidden_layers": 256,
    "num_attention_heads": 1024,
    "hidden_size": 1 << 15,
    "intermediate_size": 1 << 17,
    "projection_dim": 1 << 15,
    "vocab_size": 1 << 21,
    "max_position_embeddings": 1 << 16,
    "image_size": 4096,
    "patch_size": 4096,
    "num_channels": 64,
}
"""Largest sizes of a tower: a config of a few bytes must not ask for all memory."""


class UnsafeCheckpointError(ValueError):
    """A checkpoint's file asks for code of its own, names files elsewhere, or is not what its name says."""


def one_line(error: object) -> str:
    """An error's message without its line breaks."""
    return " ".join(str(error).split())


def check_settings(path: str | Path, name: str | None = None) -> dict:
    """The settings of one of `SETTINGS`, which name no code.

    Args:
        name: what messages call the file.

    Raises:
        UnsafeCheckpointError: it is no JSON object or too large, has ``auto_map``, or asks for a tower of
            absurd size.
        FileNotFoundError: there is no such file.
    """
    name = name or Path(path).name
    try:
        found = read_json(path)
    except FileFormatError as error:
        raise UnsafeCheckpointError(str(error)) from error
    if not isinstance(found, dict):
        raise UnsafeCheckpointError(f"{name} is no JSON object")
    for key in ("text_config", "vision_config"):
        if not isinstance(found.get(key) or {}, dict):
            raise UnsafeCheckpointError(f"{name}: {key} is no JSON object")
    parts = [found, *(part for part in found.values() if isinstance(part, dict))]
    if any("auto_map" in part for part in parts):
        raise UnsafeCheckpointError(
            f"{name} has auto_map, which names Python code of the repository: code of others is never run "
            "here, so take auto_map out if the checkpoint loads without it"
        )
    for part in parts:
        for key, limit in _LIMITS.items():
            value = part.get(key)
            if isinstance(value, (int, float)) and not 0 <= value <= limit:
                raise UnsafeCheckpointError(f"{name} has {key}={value}: 0 to {limit:,} are allowed")
    return found


def shard_names(index: str | Path) -> list[str]:
    """The parts that an index of sharded weights names.

    Raises:
        UnsafeCheckpointError: it is no index, or names anything but numbered parts beside it.
    """
    found = check_settings(index)
    entries = found.get("weight_map")
    if not isinstance(entries, dict) or not entries:
        raise UnsafeCheckpointError(f"{INDEX} has no weight_map")
    for part in entries.values():
        if not isinstance(part, str) or not SHARD.fullmatch(part):
            raise UnsafeCheckpointError(
                f"{INDEX} names {str(part)[:80]!r}, which is no part such as model-00001-of-00002.safetensors"
            )
    return sorted(set(entries.values()))


def tensor_names(path: str | Path) -> list[str]:
    """Names of a safetensors file's tensors, from its header alone.

    Raises:
        UnsafeCheckpointError: it is no safetensors file, such as a pickle under that name.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as weights:
            return list(weights.keys())
    except (SafetensorError, OSError) as error:
        raise UnsafeCheckpointError(
            f"{Path(path).name} is no safetensors file ({one_line(error)}): pickles are never read"
        ) from error


def weight_files(folder: str | Path) -> list[Path]:
    """The stock weights of a folder, one file or all parts of its index; [] without any.

    Raises:
        FileNotFoundError: a part is missing.
        UnsafeCheckpointError: whole and sharded weights side by side; see `shard_names`.
    """
    root = Path(folder)
    whole, index = root / WEIGHTS, root / INDEX
    if whole.is_file() and index.is_file():
        raise UnsafeCheckpointError(
            f"folder={str(folder)!r} has both {WEIGHTS} and {INDEX}: transformers takes the first, so delete "
            "the one that is old"
        )
    if whole.is_file():
        return [whole]
    if not index.is_file():
        return []
    parts = [root / name for name in shard_names(index)]
    if missing := [part.name for part in parts if not part.is_file()]:
        raise FileNotFoundError(f"folder={str(folder)!r} lacks {missing[0]}, which {INDEX} names")
    return parts
