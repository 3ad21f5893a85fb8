"""Encoder layers of a CLIP image tower whose weights stand still: fewer and larger products, fewer passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import QuickGELUActivation
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

SLOPE = 1.702
"""Of quick-GELU, ``x sigmoid(SLOPE x) = silu(SLOPE x) / SLOPE``."""


@contextmanager
def frozen_layers(model: PreTrainedModel, fused: bool = True) -> Iterator[None]:
    """In this scope nothing but pooled image embeddings is asked of a CLIP, and its weights do not change.

    The last layer then computes the class token alone: keys and values need all tokens, queries, projection
    and MLP those of one. ``last_hidden_state`` has one token meanwhile. Other families pool all tokens and
    are left as they are.

    Args:
        fused: also fold what is constant into copies of the weights: queries, keys and values come from one
            product, quick-GELU is one pass. Layers with adapters are left as they are.
    """
    layers = getattr(getattr(getattr(model, "vision_model", None), "encoder", None), "layers", ())
    changed = []
    for number, layer in enumerate(layers, 1):
        if not isinstance(layer, CLIPEncoderLayer) or "forward" in vars(layer):
            continue
        tokens = 1 if number == len(layers) else None
        if fused and _plain(layer):
            layer.forward = _fused(layer, tokens)
        elif tokens:
            layer.forward = partial(_first_token, layer)
        changed.append(layer)
    try:
        yield
    finally:
        for layer in changed:
            vars(layer).pop("forward", None)


def _plain(layer: CLIPEncoderLayer) -> bool:
    """Without adapters, and of CLIP's own activation."""
    attention, mlp = layer.self_attn, layer.mlp
    linears = (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj, mlp.fc1, mlp.fc2)
    stock = isinstance(mlp.activation_fn, QuickGELUActivation)
    return stock and all(type(one) is nn.Linear for one in linears)


def _first_token(layer: CLIPEncoderLayer, hidden_states: Tensor, attention_mask=None, **kwargs) -> Tensor:
    """A layer's output (B, 1, D) for the first token, attending to all; no mask hides image patches."""
    attention, first = layer.self_attn, hidden_states[:, :1]
    normed = layer.layer_norm1(hidden_states)
    query = attention.q_proj(normed[:, :1])
    mixed = _attend(layer, query, attention.k_proj(normed), attention.v_proj(normed))
    first = first + attention.out_proj(mixed)
    return first + layer.mlp(layer.layer_norm2(first))


@torch.no_grad()
def _fused(layer: CLIPEncoderLayer, tokens: int | None) -> Callable[..., Tensor]:
    """The layer as a function of its input, for its first ``tokens`` or all."""
    attention, mlp = layer.self_attn, layer.mlp
    parts = [attention.q_proj, attention.k_proj, attention.v_proj]
    query, rest = parts[: 1 if tokens else 0], parts[1 if tokens else 0 :]
    weight, bias = torch.cat([p.weight for p in rest]), torch.cat([p.bias for p in rest])
    up, up_bias = SLOPE * mlp.fc1.weight, SLOPE * mlp.fc1.bias
    down = mlp.fc2.weight / SLOPE

    def forward(hidden_states: Tensor, attention_mask=None, **kwargs) -> Tensor:
        normed = layer.layer_norm1(hidden_states)
        states = F.linear(normed, weight, bias).chunk(len(rest), -1)
        states = [*(project(normed[:, :tokens]) for project in query), *states]
        hidden_states = hidden_states[:, :tokens] + attention.out_proj(_attend(layer, *states))
        rising = F.silu(F.linear(layer.layer_norm2(hidden_states), up, up_bias))
        return hidden_states + F.linear(rising, down, mlp.fc2.bias)

    return forward


def _attend(layer: CLIPEncoderLayer, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of the layer's kernel, (B, T, D) like the query."""
    attention = layer.self_attn
    shape = (len(key), -1, attention.num_heads, attention.head_dim)
    q, k, v = (states.view(shape).transpose(1, 2) for states in (query, key, value))
    if attention.config._attn_implementation == "eager" or query.shape[1] == 1:
        mixed = (q @ k.transpose(-1, -2) * attention.scale).float().softmax(-1).to(v.dtype) @ v
    else:
        mixed = F.scaled_dot_product_attention(q, k, v, scale=attention.scale)
    return mixed.transpose(1, 2).reshape(query.shape)
