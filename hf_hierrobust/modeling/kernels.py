"""Faster kernels for attack loops, in one scope and undone afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel


@contextmanager
def fast_kernels(model: PreTrainedModel, dtype: torch.dtype | None) -> Iterator[None]:
    """Attention that suits device and precision.

    On CPU under bf16 autocast the fused attention kernel is about twice as slow as plain matrix
    products, and the other way round in fp32; on accelerators the model's own choice stays. Both
    kernels agree to 1e-5 in fp32.

    Args:
        dtype: autocast type of the scope; None is fp32.
    """
    configs = {"": model.config, **{name: getattr(model.config, name) for name in model.config.sub_configs}}
    before = {name: config._attn_implementation for name, config in configs.items()}  # towers may differ
    if model.device.type != "cpu" or dtype != torch.bfloat16 or set(before.values()) == {"eager"}:
        yield
        return
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
