"""Whether weights are still the same, to the last bit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def fingerprints(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Sum of the bit patterns of each tensor: exact, so that any single changed value shows."""
    return {
        name: int(tensor.detach().view(_BITS[tensor.element_size()]).sum(dtype=torch.int64))
        for name, tensor in tensors.items()
    }


def content_hash(*modules: nn.Module) -> str:
    """16 hexadecimal digits of every byte of all parameters and buffers, in their places."""
    found = hashlib.sha256()
    for module in modules:
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            bits = tensor.detach().contiguous().cpu().flatten().view(torch.uint8)
            found.update(bits.numpy())
    return found.hexdigest()[:16]


def weights_hash(model: nn.Module) -> str:
    """16 hexadecimal digits that tell which weights were measured, whatever their folder is called."""
    found = sorted(fingerprints(model.state_dict()).items())
    return hashlib.sha256(repr(found).encode()).hexdigest()[:16]
