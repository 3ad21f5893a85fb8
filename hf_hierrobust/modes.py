"""Training and evaluation mode, and frozen parameters, for as long as somebody needs them.

Users are counted: while one thread attacks a model and another encodes prompts with it, the first to finish
must not put it back into training mode under the other, and the last must.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn

_LOCK = threading.Lock()
_HELD: dict[tuple[int, str], list] = {}
"""(id, attribute) -> [users, object, value to restore], of every module and parameter held at present."""


@contextmanager
def held_off(objects: Iterable[object], attribute: str) -> Iterator[None]:
    """The attribute is False inside; when its last user leaves, also by an exception, it is what it was.

    Args:
        objects: modules for ``"training"``, parameters for ``"requires_grad"``.
    """
    objects = list({id(one): one for one in objects}.values())
    with _LOCK:
        for one in objects:
            entry = _HELD.setdefault((id(one), attribute), [0, one, getattr(one, attribute)])
            entry[0] += 1
            setattr(one, attribute, False)
    try:
        yield
    finally:
        with _LOCK:
            for one in objects:
                entry = _HELD[id(one), attribute]
                entry[0] -= 1
                if entry[0] == 0:
                    setattr(one, attribute, entry[2])
                    del _HELD[id(one), attribute]


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every part is in the mode it had, also after an exception."""
    # One by one: parts of a training model, such as a frozen text trunk, may be in evaluation mode.
    with held_off([part for module in modules for part in module.modules()], "training"):
        yield
