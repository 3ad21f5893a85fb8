"""Whether weights are still the same, to the last bit and in the same places."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn


def fingerprints(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """`tensor_digest` of each tensor, by its name."""
    return {name: tensor_digest(tensor) for name, tensor in tensors.items()}


def tensor_digest(tensor: Tensor) -> str:
    """16 hexadecimal digits of a tensor's type, shape and bytes in their order: any changed value shows, and
    any two that change places."""
    found = tensor.detach()
    if found.is_quantized:
        found = found.dequantize()
    if found.layout != torch.strided:
        found = found.to_dense()
    bits = found.cpu().resolve_conj().resolve_neg().contiguous().flatten().view(torch.uint8)
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
    digest.update(bits.numpy())
    return digest.hexdigest()[:16]


def content_hash(*modules: nn.Module) -> str:
    """16 hexadecimal digits of every byte of all parameters and buffers, in their places."""
    held = [[*module.named_parameters(), *module.named_buffers()] for module in modules]
    return _of([[(name, tensor_digest(tensor)) for name, tensor in tensors] for tensors in held])


def weights_hash(model: nn.Module) -> str:
    """16 hexadecimal digits that tell which weights were measured, whatever their folder is called."""
    return _of(sorted(fingerprints(model.state_dict()).items()))


def _of(found: list) -> str:
    return hashlib.sha256(repr(found).encode()).hexdigest()[:16]
