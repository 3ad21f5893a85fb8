"""Settings as plain JSON, their digests, and in words how two of them differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def differences(saved: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, list]:
    """``{name: [saved, asked]}`` of all settings that differ; None where one side lacks it."""
    names = [*asked, *(name for name in saved if name not in asked)]
    return {n: [saved.get(n), asked.get(n)] for n in names if saved.get(n) != asked.get(n)}


def describe_differences(found: Mapping[str, list], shown: int = 6) -> str:
    """``eps: '1/255' -> '2/255'; seed: 1 -> 2``."""
    parts = [f"{name}: {_short(old)} -> {_short(new)}" for name, (old, new) in found.items()]
    rest = f"; and {len(parts) - shown} more" if len(parts) > shown else ""
    return "; ".join(parts[:shown]) + rest


def plain(value: Any) -> Any:
    """A value as JSON would give it back: enumerations by value, arrays as lists, the unknown as text."""
    value = getattr(value, "value", value)
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(entry) for entry in value), key=repr)
    if isinstance(value, (np.generic, np.ndarray, torch.Tensor)):
        return plain(value.tolist())
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def digest_of(value: Any) -> str:
    """16 hexadecimal digits of a value, as JSON has it."""
    return digest(json.dumps(plain(value), sort_keys=True).encode())


def digest(*parts: bytes | np.ndarray) -> str:
    """16 hexadecimal digits of some bytes."""
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little"))
        found.update(part)
    return found.hexdigest()[:16]


def tensor_digest(values: torch.Tensor | np.ndarray) -> str:
    """16 hexadecimal digits of type, shape and bytes: a changed value shows, and two that change places."""
    if isinstance(values, np.ndarray):
        return digest(f"{values.dtype} {values.shape}".encode(), np.ascontiguousarray(values).tobytes())
    found = values.detach()
    if found.is_quantized:
        found = found.dequantize()
    if found.layout != torch.strided:
        found = found.to_dense()
    bits = found.cpu().resolve_conj().resolve_neg().contiguous().flatten().view(torch.uint8)
    return digest(f"{values.dtype} {tuple(values.shape)}".encode(), bits.numpy())


def _short(value: Any, length: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= length else text[: length - 1] + "…"
