"""Evaluation mode and frozen parameters while a model is attacked, whatever callable stands before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from ..modes import evaluating, held_off
from .behind import modules_behind


@contextmanager
def frozen(*callables: Callable | None) -> Iterator[None]:
    """Evaluation mode, parameters frozen, gradients enabled; everything is restored on exit.

    Users are counted, so that threads may attack one model at the same time. Freezing saves the memory of
    the weight-gradient graph; `torch.autograd.grad` would leave ``.grad`` alone without it.

    Args:
        callables: networks, or callables before them (`modules_behind`); None is left out.

    Raises:
        RuntimeError: inside `torch.inference_mode`, which no gradient leaves.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError("attacks need gradients: call them outside torch.inference_mode()")
    modules = modules_behind(*callables)
    parameters = [p for module in modules for p in module.parameters()]
    with evaluating(*modules), held_off(parameters, "requires_grad"), torch.enable_grad():
        yield
