"""What a callable computes with, however deep: networks, plain tensors, constants and code."""

from __future__ import annotations

import dis
import functools
import sys
import types
import weakref
from argparse import Namespace
from collections import deque
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ..digests import digest_of, tensor_digest

_LIBRARIES = frozenset(sys.stdlib_module_names) | {
    *("torch", "numpy", "scipy", "transformers", "datasets", "accelerate", "peft", "PIL", "tqdm", "sklearn"),
    *("hf_hierrobust", "pytest", "_pytest", "matplotlib", "pandas", "IPython", "ipykernel"),
}
"""Packages whose functions read no network of the user from their globals."""
_MOST = 20_000
"""Objects looked at, at most: a callable that leads to more is no classifier but a program."""
_CONSTANTS = (str, bytes, int, float, complex, type(None), range, torch.dtype, np.generic)
_ARRAYS = (Tensor, np.ndarray)
_PLAIN = (*_CONSTANTS, *_ARRAYS, types.ModuleType)
_OF_MODULES = frozenset(vars(nn.Module())) | {"name_or_path", "_is_hf_initialized", "warnings_issued"}
"""Attributes of modules that say nothing about their answers, or are looked at by themselves."""


def modules_behind(*callables: object) -> list[nn.Module]:
    """The torch modules that callables compute with, outermost ones only.

    Found are the callable itself, what a bound method or `functools.partial` is bound to, what a function
    closes over, takes by default or reads from its globals, and the attributes of callable objects, all of
    this however deep, nearest first, and through lists and mappings.
    """
    found = [one for _, one, _ in _walk(callables) if isinstance(one, nn.Module)]
    inner = {id(part) for one in found for part in one.modules() if part is not one}
    return [one for one in found if id(one) not in inner]


def tensors_behind(*callables: object) -> list[tuple[str, Tensor | np.ndarray]]:
    """All tensors that callables compute with.

    First parameters and buffers of `modules_behind`, with their names, then what the user's own code holds
    besides: tensors and arrays in closures, globals, attributes, lists.
    """
    modules = modules_behind(*callables)
    named = [pair for one in modules for pair in (*one.named_parameters(), *one.named_buffers())]
    held = {id(tensor) for _, tensor in named}
    plain = [one for _, one, own in _walk(callables, within=True) if own and isinstance(one, _ARRAYS)]
    return named + [("", one) for one in plain if id(one) not in held]


def weights_behind(*callables: object) -> list[str]:
    """Names and digests of `tensors_behind`."""
    return [f"{name} {tensor_digest(tensor)}" for name, tensor in tensors_behind(*callables)]


def constants_behind(*callables: object) -> list[str]:
    """The user's own code behind callables and the constants that it uses, each with its place, sorted.

    Functions and classes of libraries count by their names. Tensors are left to `weights_behind`.
    """
    return sorted(f"{where}={value}" for where, value in _constants(callables))


def code_digest(one: object) -> str:
    """16 hexadecimal digits of a callable's code and all that it computes with, but for what it writes to.

    What the code stores outside of ``__init__``, such as a count of its calls, is no part of it; nor are
    lists and mappings that it may change.
    """
    functions = [f for _, f, _ in _walk([one], within=True) if isinstance(f, types.FunctionType)]
    written, changes_lists = _written(functions)

    def kept(where: str) -> bool:
        names = where.split("/")
        return written.isdisjoint(names) and not (changes_lists and any(":" in name for name in names))

    constants = [entry for entry in sorted(_constants([one])) if kept(entry[0])]
    return digest_of([constants, weights_behind(one)])


def _constants(callables) -> list[tuple[str, str]]:
    found = []
    for where, one, own in _walk(callables, within=True):
        if isinstance(one, types.FunctionType) and not _library(one):
            found.append((where, digest_of(_parts(one.__code__))))
        elif own and isinstance(one, _CONSTANTS):
            found.append((where, repr(one)))
        elif own and isinstance(name := getattr(one, "__qualname__", None), str):
            found.append((where, f"{getattr(one, '__module__', None)}.{name}"))
    return found


def _walk(callables, within: bool = False) -> Iterator[tuple[str, object, bool]]:
    """All objects behind callables, nearest first: where each is, and whether the user's own code holds it.

    Args:
        within: look into modules and classes too.
    """
    seen: dict[int, object] = {}  # kept: bound methods are made anew, and an id must stay taken
    queue = deque((str(number), one, True) for number, one in enumerate(callables))
    while queue and len(seen) < _MOST:
        where, one, own = queue.popleft()
        if isinstance(one, _PLAIN):
            yield where, one, own
            continue
        if id(one) in seen:
            continue
        seen[id(one)] = one
        yield where, one, own
        if within or not isinstance(one, (nn.Module, type)):
            queue.extend((f"{where}/{name}", lead, held) for name, lead, held in _leads(one, own))


def _leads(one: object, own: bool) -> list[tuple[str, object, bool]]:
    """Where a network behind this object may be: its name there, and whether the user's own code holds it."""
    if isinstance(one, functools.partial):
        return _held({"func": one.func, **_numbered(one.args), **one.keywords}, True)
    if isinstance(one, types.MethodType):
        return _held({"self": one.__self__, "func": one.__func__}, own)
    if isinstance(one, weakref.ReferenceType):
        return _held({"": one()}, own)
    if isinstance(one, types.FunctionType):
        return _held(_read_by(one), not _library(one))
    if isinstance(one, Mapping):
        names = [key if isinstance(key, _CONSTANTS) else "" for key in one]
        return [(f"{len(one)}:{name}", value, own) for name, value in zip(names, one.values())]
    if isinstance(one, (list, tuple, deque)):
        return [(f"{len(one)}:{place}", value, own) for place, value in enumerate(one)]
    if isinstance(one, (set, frozenset)):
        return [(f"{len(one)}:", value, own) for value in one]
    if isinstance(one, type):
        return _held(_of_class(one), True)
    if isinstance(one, nn.Module):
        return _of_module(one)
    own = not _library(type(one)) or getattr(type(one), "holds_constants", False)
    values = {**getattr(one, "__dict__", {}), "__wrapped__": getattr(one, "__wrapped__", None)}
    for cls in type(one).__mro__:
        slots = vars(cls).get("__slots__", ())
        values |= {name: getattr(one, name, None) for name in ([slots] if isinstance(slots, str) else slots)}
    return _held(values, own) + _held(_of_class(type(one)), True)


def _held(values: Mapping[str, object], own: bool) -> list[tuple[str, object, bool]]:
    return [(name, value, own) for name, value in values.items() if value is not None]


def _of_module(module: nn.Module) -> list[tuple[str, object, bool]]:
    """Its parts, and what the user's own class or torch's takes for constants."""
    cls, parts = type(module), _held(dict(module.named_children()), True)
    if _library(cls):
        named = getattr(cls, "__constants__", ()) if cls.__module__.startswith("torch.") else ()
        return parts + _held({name: getattr(module, name, None) for name in named}, True)
    own = {name: value for name, value in vars(module).items() if name not in _OF_MODULES}
    return parts + _held(own, True) + _held(_of_class(cls), True)


def _of_class(cls: type) -> dict[str, object]:
    """Methods, properties and constants of the user's own class and its own bases."""
    found = {}
    for base in cls.__mro__:
        for name, value in {} if _library(base) else vars(base).items():
            value = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            if isinstance(value, types.FunctionType) or not name.startswith("__"):
                found.setdefault(name, value)
    return found


def _read_by(function: types.FunctionType) -> dict[str, object]:
    """What a function closes over, takes by default, or reads from its globals."""
    values = {"__wrapped__": getattr(function, "__wrapped__", None)}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        try:
            values[name] = cell.cell_contents
        except ValueError:  # not yet assigned
            continue
    if _library(function):
        return values
    codes = _with_inner([function.__code__])  # a function within reads the same globals
    names = list(dict.fromkeys(name for code in codes for name in code.co_names))
    values = {name: function.__globals__.get(name) for name in names} | values
    # models.net(x), args.scale: the names are those of attributes too.
    for name, value in list(values.items()):
        if isinstance(value, (types.ModuleType, types.SimpleNamespace, Namespace)):
            del values[name]
            if not (isinstance(value, types.ModuleType) and _library(value)):
                values |= {f"{name}.{other}": getattr(value, other, None) for other in names}
    return values | _numbered(function.__defaults__ or ()) | (function.__kwdefaults__ or {})


def _with_inner(codes: list[types.CodeType]) -> list[types.CodeType]:
    """The codes and those of all functions within."""
    found = list(codes)
    for code in found:  # which grows
        found += [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return found


def _numbered(values: tuple) -> dict[str, object]:
    return {f"argument {place}": value for place, value in enumerate(values)}


def _parts(code: types.CodeType) -> list:
    """A function's code without its place in a file."""
    constants = [
        _parts(one)
        if isinstance(one, types.CodeType)
        else sorted(map(repr, one))
        if isinstance(one, frozenset)
        else repr(one)
        for one in code.co_consts
    ]
    return [code.co_code.hex(), constants, code.co_names, code.co_varnames, code.co_freevars, code.co_flags]


def _written(functions: list[types.FunctionType]) -> tuple[set[str], bool]:
    """Names that functions store outside of a beginning, and whether they may change lists or mappings."""
    codes = [f.__code__ for f in functions if not _library(f) and f.__name__ not in _BEGINNINGS]
    names, changes = set(), False
    for code in _with_inner(codes):
        changes |= not _CHANGING.isdisjoint(code.co_names)
        for step in dis.get_instructions(code):
            if step.opname in ("STORE_ATTR", "STORE_GLOBAL", "STORE_DEREF"):
                names.add(step.argval)
            changes |= step.opname == "STORE_SUBSCR"
    return names, changes


_BEGINNINGS = ("__init__", "__post_init__", "__new__")
_CHANGING = frozenset(
    ["append", "extend", "insert", "pop", "add", "update", "setdefault", "appendleft", "remove"]
)


def _library(one: object) -> bool:
    name = one.__name__ if isinstance(one, types.ModuleType) else getattr(one, "__module__", None)
    return (name or "").partition(".")[0] in _LIBRARIES
