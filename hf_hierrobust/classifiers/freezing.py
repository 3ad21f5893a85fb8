"""Evaluation mode and frozen parameters while a model is attacked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Classifier = Callable[[Tensor], Tensor]


def _module(model: Classifier) -> nn.Module | None:
    """The torch module behind a callable: itself, or what it names in ``.module``, however deep."""
    while model is not None and not isinstance(model, nn.Module):
        model = getattr(model, "module", None)
    return model


@contextmanager
def frozen(model: Classifier) -> Iterator[None]:
    """Evaluation mode, parameters frozen, gradients enabled; everything is restored on exit.

    Freezing saves the memory of the weight-gradient graph; `torch.autograd.grad` would leave
    ``.grad`` alone without it.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError("attacks need gradients: call them outside torch.inference_mode()")
    top = _module(model)
    modules = [] if top is None else list(top.modules())
    modes = [m.training for m in modules]
    params = [] if top is None else list(top.parameters())
    flags = [p.requires_grad for p in params]
    try:
        for m in modules:
            m.training = False
        for p in params:
            p.requires_grad_(False)
        with torch.enable_grad():
            yield
    finally:
        for m, mode in zip(modules, modes):
            m.training = mode
        for p, flag in zip(params, flags):
            p.requires_grad_(flag)
