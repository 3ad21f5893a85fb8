"""Faster kernels for attack loops, in one scope and undone afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from ..precision import attention_kernel, prefers_onednn
from .frozen_layers import frozen_layers


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
    """`fast_kernels`, and what only holds while nothing but image embeddings of a frozen model is asked for.

    Layers are those of `frozen_layers`. In fp32, matrix products go to oneDNN where it is the faster one and
    as exact (`prefers_onednn`); the fused attention is slow beside it.

    Args:
        dtype: autocast type of the scope; None is fp32.
    """
    onednn = dtype is None and prefers_onednn(model.device.type)
    attention = "eager" if onednn else attention_kernel(model.device.type, dtype)
    products = _onednn_products() if onednn else contextlib.nullcontext()
    with _attention(model, attention), frozen_layers(model, fused=dtype is None), products:
        yield


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
