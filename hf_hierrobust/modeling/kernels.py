"""Faster kernels for attack loops, in one scope and undone afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from ..precision import attention_kernel, prefers_onednn


@contextmanager
def fast_kernels(model: PreTrainedModel, dtype: torch.dtype | None) -> Iterator[None]:
    """The attention of `attention_kernel` for the model's device and this precision.

    Args:
        dtype: autocast type of the scope; None is fp32.
    """
    with _attention(model, attention_kernel(model.device.type, dtype)):
        yield


@contextmanager
def attack_kernels(model: PreTrainedModel, dtype: torch.dtype | None) -> Iterator[None]:
    """`fast_kernels`, and what only holds while nothing but image embeddings is asked for.

    The last layer computes the class token alone (`class_token_only`). In fp32, matrix products go to oneDNN
    where it is the faster one and as exact (`prefers_onednn`); the fused attention is slow beside it.

    Args:
        dtype: autocast type of the scope; None is fp32.
    """
    onednn = dtype is None and prefers_onednn(model.device.type)
    attention = "eager" if onednn else attention_kernel(model.device.type, dtype)
    products = _onednn_products() if onednn else contextlib.nullcontext()
    with _attention(model, attention), class_token_only(model), products:
        yield


@contextmanager
def class_token_only(model: PreTrainedModel) -> Iterator[None]:
    """The last layer of a CLIP image tower computes its first token only, which alone is pooled.

    Keys and values need all tokens; queries, projection and MLP are those of one: 1/7 of the work of a tower
    of six layers, forwards and backwards. ``last_hidden_state`` has one token meanwhile. Other families pool
    all tokens and are left as they are.
    """
    layers = getattr(getattr(getattr(model, "vision_model", None), "encoder", None), "layers", None)
    layer = layers[-1] if layers else None
    if not isinstance(layer, CLIPEncoderLayer) or "forward" in vars(layer):
        yield
        return
    layer.forward = partial(_first_token, layer)
    try:
        yield
    finally:
        vars(layer).pop("forward", None)


def _first_token(layer: nn.Module, hidden_states: Tensor, attention_mask=None, **kwargs) -> Tensor:
    """A layer's output (B, 1, D) for the first token, attending to all; no mask hides image patches."""
    attention, first = layer.self_attn, hidden_states[:, :1]
    normed = layer.layer_norm1(hidden_states)
    heads = (len(hidden_states), -1, attention.num_heads, attention.head_dim)
    query = attention.q_proj(normed[:, :1]).view(heads).transpose(1, 2)
    key = attention.k_proj(normed).view(heads).transpose(1, 2)
    value = attention.v_proj(normed).view(heads).transpose(1, 2)
    weights = (query @ key.transpose(-1, -2) * attention.scale).float().softmax(-1).to(value.dtype)
    mixed = (weights @ value).transpose(1, 2).reshape(first.shape)
    first = first + attention.out_proj(mixed)
    return first + layer.mlp(layer.layer_norm2(first))


@contextmanager
def _attention(model: PreTrainedModel, wanted: str | None) -> Iterator[None]:
    configs = {"": model.config, **{name: getattr(model.config, name) for name in model.config.sub_configs}}
    before = {name: config._attn_implementation for name, config in configs.items()}  # towers may differ
    if wanted is None or set(before.values()) == {wanted}:
        yield
        return
    model.set_attn_implementation(wanted)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextmanager
def _onednn_products() -> Iterator[None]:
    """oneDNN computes matrix products of fp32 numbers; without AMX it does so in fp32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
