"""Evaluation mode and frozen parameters while a model is attacked, whatever callable stands before it."""

from __future__ import annotations

import functools
import sys
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from ..modes import evaluating, held_off

_LIBRARIES = frozenset(sys.stdlib_module_names) | {
    *("torch", "numpy", "scipy", "transformers", "datasets", "accelerate", "peft", "PIL", "tqdm", "sklearn"),
    *("hf_hierrobust", "pytest", "_pytest", "matplotlib", "pandas", "IPython", "ipykernel"),
}
"""Packages whose functions read no network of the user from their globals."""
_MOST = 20_000
"""Objects looked at, at most: a callable that leads to more is no classifier but a program."""
_PLAIN = (str, bytes, int, float, complex, torch.Tensor, type(None), types.ModuleType, type)


def modules_behind(*callables: Callable | None) -> list[nn.Module]:
    """The torch modules that callables compute with, outermost ones only.

    Found are the callable itself, what a bound method or `functools.partial` is bound to, what a function
    closes over, takes by default or reads from its globals, and the attributes of callable objects, all of
    this however deep, nearest first, and through lists and mappings.
    """
    found: dict[int, nn.Module] = {}
    seen: dict[int, object] = {}  # kept: bound methods are made anew, and an id must stay taken
    queue = deque(callables)
    while queue and len(seen) < _MOST:
        one = queue.popleft()
        if isinstance(one, _PLAIN) or id(one) in seen:
            continue
        seen[id(one)] = one
        if isinstance(one, nn.Module):
            found[id(one)] = one
        else:
            queue.extend(_leads(one))
    inner = {id(part) for one in found.values() for part in one.modules() if part is not one}
    return [one for key, one in found.items() if key not in inner]


def _leads(one: object) -> list:
    """Where a network behind this object may be."""
    if isinstance(one, functools.partial):
        return [one.func, *one.args, *one.keywords.values()]
    if isinstance(one, types.MethodType):
        return [one.__self__, one.__func__]
    if isinstance(one, weakref.ReferenceType):
        return [one()]
    if isinstance(one, types.FunctionType):
        return _read_by(one)
    if isinstance(one, Mapping):
        return list(one.values())
    if isinstance(one, (list, tuple, set, frozenset)):
        return list(one)
    leads = [*getattr(one, "__dict__", {}).values(), getattr(one, "__wrapped__", None)]
    for cls in type(one).__mro__:
        slots = vars(cls).get("__slots__", ())
        leads += [getattr(one, name, None) for name in ([slots] if isinstance(slots, str) else slots)]
        if not _library(cls):
            leads += [v.fget if isinstance(v, property) else v for v in vars(cls).values()]
    return leads


def _read_by(function: types.FunctionType) -> list:
    """What a function closes over, takes by default, or reads from its globals."""
    if _library(function):
        return [getattr(function, "__wrapped__", None), *_cells(function)]
    values = [*_cells(function), *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    codes = [function.__code__]
    while codes:  # a function within reads the same globals
        code = codes.pop()
        codes += [const for const in code.co_consts if isinstance(const, types.CodeType)]
        for name in code.co_names:
            value = function.__globals__.get(name)
            if isinstance(value, types.ModuleType):  # models.net(x): the names are those of attributes too
                values += [getattr(value, other, None) for other in code.co_names if not _library(value)]
            else:
                values.append(value)
    return [*values, getattr(function, "__wrapped__", None)]


def _cells(function: types.FunctionType) -> list:
    values = []
    for cell in function.__closure__ or ():
        try:
            values.append(cell.cell_contents)
        except ValueError:  # not yet assigned
            continue
    return values


def _library(one: object) -> bool:
    name = one.__name__ if isinstance(one, types.ModuleType) else getattr(one, "__module__", None)
    return (name or "").partition(".")[0] in _LIBRARIES


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
