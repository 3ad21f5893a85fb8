"""Faster kernels for attack loops, in one scope and undone afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from ..precision import attention_kernel


@contextmanager
def fast_kernels(model: PreTrainedModel, dtype: torch.dtype | None) -> Iterator[None]:
    """The attention of `attention_kernel` for the model's device and this precision.

    Args:
        dtype: autocast type of the scope; None is fp32.
    """
    configs = {"": model.config, **{name: getattr(model.config, name) for name in model.config.sub_configs}}
    before = {name: config._attn_implementation for name, config in configs.items()}  # towers may differ
    wanted = attention_kernel(model.device.type, dtype)
    if wanted is None or set(before.values()) == {wanted}:
        yield
        return
    model.set_attn_implementation(wanted)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
