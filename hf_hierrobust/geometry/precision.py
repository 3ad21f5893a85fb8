"""Numeric guards shared by the hyperbolic charts: precision, curvature and the zero vector."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

F = TypeVar("F", bound=Callable)

# Added to a squared distance before its root, so that the gradient of d(u, u) is 0 and not nan (OC-4).
# In units of squared ball length: it bounds distances from below by 2e-6, whatever the curvature.
SQRT_EPS = 1e-12


def _tensors(values) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            if value.is_floating_point():
                yield value
        elif isinstance(value, tuple):
            yield from _tensors(value)


def _cast(value, device: torch.device, dtype: torch.dtype):
    if isinstance(value, Tensor):
        if not value.is_floating_point():
            return value
        return value.to(device=device, dtype=dtype) if value.ndim == 0 else value.to(dtype)
    if isinstance(value, tuple) and hasattr(value, "_make"):
        return value._make(_cast(item, device, dtype) for item in value)
    return value


def full_precision(function: F) -> F:
    """Decorator: run ``function`` in float32 or float64 with autocast off.

    Half and bfloat16 arguments are upcast to float32. One float64 array argument promotes the whole call to
    float64; zero-dimensional tensors (a learned curvature) follow the arrays and never promote them. Named
    tuples of tensors are handled field by field. Hyperbolic formulas lose every digit in half precision near
    the edge of the ball, hence the guard sits here and not at the callers (OC-4).
    """

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        found = list(_tensors((*args, *kwargs.values())))
        if not found:
            return function(*args, **kwargs)
        arrays = [tensor for tensor in found if tensor.ndim > 0] or found
        device = arrays[0].device
        dtype = torch.float64 if any(t.dtype == torch.float64 for t in arrays) else torch.float32
        args = [_cast(value, device, dtype) for value in args]
        kwargs = {name: _cast(value, device, dtype) for name, value in kwargs.items()}
        if not torch.amp.is_autocast_available(device.type):
            return function(*args, **kwargs)
        with torch.autocast(device_type=device.type, enabled=False):
            return function(*args, **kwargs)

    return wrapper


def check_curvature(curvature: float | Tensor) -> float | Tensor:
    """Return ``curvature`` (r > 0, the space has curvature -r) after checking it.

    Raises:
        TypeError: if it is neither a number nor a zero-dimensional tensor.
        ValueError: if a number (or CPU tensor) is not positive and finite. Tensors on an accelerator are not
            read, since that would synchronise the device in every attack step.
    """
    if isinstance(curvature, Tensor):
        if curvature.ndim != 0:
            raise TypeError(
                f"curvature must be a number or a 0-dim tensor, got shape {tuple(curvature.shape)}; "
                "use curvature.squeeze() for a one-element tensor"
            )
        if curvature.device.type != "cpu" or torch.compiler.is_compiling():
            return curvature
        value = curvature.item()
    elif isinstance(curvature, (int, float)):
        value = curvature
    else:
        raise TypeError(f"curvature must be a number or a 0-dim tensor, got {type(curvature).__name__}")
    if not 0 < value < float("inf"):
        raise ValueError(
            f"curvature must be positive and finite, got {value}; pass r = 1.0 for a space of curvature -1"
        )
    return curvature


def safe_norm(v: Tensor, keepdim: bool = False) -> Tensor:
    """Euclidean norm over the last axis whose first and second derivatives are finite at the zero vector."""
    squared = (v * v).sum(-1, keepdim=keepdim)
    is_zero = squared == 0
    root = torch.where(is_zero, torch.ones_like(squared), squared).sqrt()
    return torch.where(is_zero, torch.zeros_like(root), root)


def accumulation_dtype(device: torch.device) -> torch.dtype:
    """Type in which midpoint sums are carried: float64 wherever the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


@torch.compiler.assume_constant_result
def _rounds_matmul_inputs() -> bool:
    """Whether float32 matrix products may run in TF32 or bfloat16 in this process."""
    try:
        return torch.get_float32_matmul_precision() != "highest"
    except RuntimeError:  # raised when only the newer ``fp32_precision`` flags were set, and not to "ieee"
        return True


def exact_products(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in a type whose matrix product keeps at least float32 digits.

    Distances subtract an inner product from norms, and TF32 would leave three digits in the difference. Where
    the process allows it (``TrainingArguments(tf32=True)``, ``torch.set_float32_matmul_precision``) the
    tensors come back in float64.
    """
    if not _rounds_matmul_inputs():
        return tensors
    return tuple(tensor.to(accumulation_dtype(tensor.device)) for tensor in tensors)
