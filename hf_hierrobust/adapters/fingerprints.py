"""Whether weights are still the same, to the last bit and in the same places."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ..digests import digest_of, tensor_digest


def fingerprints(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """A digest of each tensor by its name; see `tensor_digest`."""
    return {name: tensor_digest(tensor) for name, tensor in tensors.items()}


def weights_hash(model: nn.Module) -> str:
    """16 hexadecimal digits that tell which weights were measured, whatever their folder is called."""
    return digest_of(fingerprints(model.state_dict()))
