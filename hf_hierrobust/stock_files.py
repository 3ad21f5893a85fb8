"""What may stand in the files of a stock checkpoint: plain settings and tensors, nothing that runs.

Read before anything is built from a folder or a repository of other people, and before a folder is pushed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
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
    "height": 4096,
    "width": 4096,
    "shortest_edge": 4096,
    "longest_edge": 4096,
}
"""Largest sizes of a tower and its images: settings of a few bytes must not ask for all memory."""
_NAMES = ("hier_robust", "id2label", "label2id")
"""Sections whose keys are options of ours or classes, from which nothing is built: no ``width`` is a size."""
_IMAGE_TYPES = ("image_processor_type", "feature_extractor_type")
_IMAGE_CLASS = re.compile(r"\w+(ImageProcessor(Fast|Pil)?|FeatureExtractor)")
_KERNELS = (None, "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")


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
    for part in _objects(found):
        _check_part(part, name)
    return found


def _objects(found: object) -> Iterator[dict]:
    """A JSON object and all below it, but for the sections of `_NAMES`."""
    waiting = [found]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting += [value for key, value in one.items() if key not in _NAMES]
        elif isinstance(one, list):
            waiting += one


def _check_part(part: dict, name: str) -> None:
    if "auto_map" in part:
        raise UnsafeCheckpointError(
            f"{name} has auto_map, which names Python code of the repository: code of others is never run "
            "here, so take auto_map out if the checkpoint loads without it"
        )
    for key, value in part.items():
        if key.endswith(("_implementation", "_implementation_internal")):
            asked = value.values() if isinstance(value, dict) else [value]
            if any(kernel not in _KERNELS for kernel in asked):
                raise UnsafeCheckpointError(
                    f"{name} has {key}={str(value)[:80]!r}, which may be a kernel of somebody's repository: "
                    f"code of others is never run here, so take it out or say {', '.join(_KERNELS[1:3])}"
                )
        limit = _LIMITS.get(key)
        if limit and value is not None and not (_is_number(value) and 1 <= value <= limit):
            raise UnsafeCheckpointError(f"{name} has {key}={value!r:.80}: 1 to {limit:,} are allowed")
        if key in _IMAGE_TYPES and not _IMAGE_CLASS.fullmatch(str(value)):
            raise UnsafeCheckpointError(f"{name} has {key}={str(value)[:80]!r}, which is no image processor")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


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
