"""The same tensors under open_clip's names and under transformers': renamed, stacked and transposed.

open_clip keeps the towers in `torch.nn.MultiheadAttention` blocks with one projection for queries, keys and
values, and its two final projections as matrices that stand to the right of the features.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_WHOLE = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "logit_scale": "logit_scale",
}
_TRANSPOSED = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}
_BLOCKS = {
    "visual.transformer.resblocks.": "vision_model.encoder.layers.",
    "transformer.resblocks.": "text_model.encoder.layers.",
}
_IN_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_STACKED = re.compile(r"(.+resblocks\.\d+\.)attn\.in_proj_(weight|bias)")
_PART = re.compile(r"(.+layers\.\d+\.)self_attn\.([qkv])_proj\.(weight|bias)")


def from_open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under open_clip's names as those of a `CLIPModel`, to the last bit.

    Raises:
        KeyError: a name that open_clip's ViT with a text tower does not have.
    """
    out: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if key in _WHOLE:
            out[_WHOLE[key]] = tensor.reshape(()) if key == "logit_scale" else tensor
        elif key in _TRANSPOSED:
            out[_TRANSPOSED[key]] = tensor.T.contiguous()
        elif found := _STACKED.fullmatch(key):
            prefix = _renamed(found[1], _BLOCKS)
            for name, part in zip("qkv", tensor.chunk(3)):
                out[f"{prefix}self_attn.{name}_proj.{found[2]}"] = part.contiguous()
        else:
            out[_block_name(key, _BLOCKS, _IN_BLOCK)] = tensor
    return out


def to_open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a `CLIPModel` under open_clip's names, to the last bit.

    Raises:
        KeyError: a name that a `CLIPModel` does not have.
    """
    whole, transposed = _turned(_WHOLE), _turned(_TRANSPOSED)
    out: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if key in whole:
            out[whole[key]] = tensor
        elif key in transposed:
            out[transposed[key]] = tensor.T.contiguous()
        elif found := _PART.fullmatch(key):
            if found[2] == "q":
                parts = [state[f"{found[1]}self_attn.{name}_proj.{found[3]}"] for name in "qkv"]
                out[f"{_renamed(found[1], _turned(_BLOCKS))}attn.in_proj_{found[3]}"] = torch.cat(parts)
        else:
            out[_block_name(key, _turned(_BLOCKS), _turned(_IN_BLOCK))] = tensor
    return out


def _block_name(key: str, blocks: Mapping[str, str], inside: Mapping[str, str]) -> str:
    renamed = _renamed(key, blocks)
    head, _, kind = renamed.rpartition(".")
    found = re.fullmatch(r"(.+\.\d+)\.(.+)", head)
    if renamed == key or found is None or found[2] not in inside:
        raise KeyError(key)
    return f"{found[1]}.{inside[found[2]]}.{kind}"


def _renamed(key: str, prefixes: Mapping[str, str]) -> str:
    for old, new in prefixes.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


def _turned(names: Mapping[str, str]) -> dict[str, str]:
    return {new: old for old, new in names.items()}
