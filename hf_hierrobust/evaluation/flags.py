"""Verdicts per image as short text, so that a record can carry them."""

from __future__ import annotations

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
