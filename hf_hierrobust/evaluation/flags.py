"""Verdicts per image as short text and as counts of each class, so that a record can carry them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def pack_flags(flags: Tensor) -> str:
    """(N,) bool as hexadecimal digits, eight images a byte, the first one in the highest bit."""
    return np.packbits(flags.cpu().numpy().astype(bool)).tobytes().hex()


def unpack_flags(text: str, n: int) -> Tensor:
    """(n,) bool of what `pack_flags` wrote.

    Raises:
        ValueError: not hexadecimal, or of another number of images.
    """
    try:
        packed = np.frombuffer(bytes.fromhex(text), dtype=np.uint8)
    except ValueError as error:
        raise ValueError(f"flags={text[:20]!r}… are not hexadecimal digits: {error}.") from error
    if len(packed) != -(-n // 8) or np.unpackbits(packed)[n:].any():
        raise ValueError(f"flags hold {len(packed)} bytes; {n} images need {-(-n // 8)}, the rest zero.")
    return torch.from_numpy(np.unpackbits(packed, count=n).astype(bool))


def class_counts(names: Sequence[str], labels: Sequence[int], clean: Tensor, robust: Tensor) -> dict:
    """The ``classes`` of a record.

    Args:
        names: of the K classes.
        labels: (N,) class of each image.
        clean, robust: (N,) bool verdicts.
    """
    labels = np.asarray(labels, dtype=np.int64)
    kinds = {"images": None, "clean": clean, "robust": robust}
    counts = {
        kind: np.bincount(
            labels if right is None else labels[right.cpu().numpy().astype(bool)], minlength=len(names)
        )
        for kind, right in kinds.items()
    }
    return {"names": list(names), **{kind: found.tolist() for kind, found in counts.items()}}
