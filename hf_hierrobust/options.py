"""Checks of options of objectives, attacks and runs: they may come from JSON or YAML and hold anything."""

from __future__ import annotations

import math
from collections.abc import Sequence


def check_numbers(options: object, *names: str, positive: bool = False) -> None:
    """Each named attribute is a finite number, at least 0 or, with ``positive``, above 0.

    Raises:
        ValueError: naming the first option that is not.
    """
    for name in names:
        value = getattr(options, name)
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not number or value < 0 or (positive and value == 0):
            wanted = "a positive number" if positive else "a number, at least 0"
            raise ValueError(f"{name}={value!r} must be {wanted}")


def check_counts(options: object, *names: str) -> None:
    """Each named attribute is an integer, at least 1.

    Raises:
        ValueError: naming the first option that is not.
    """
    for name in names:
        value = getattr(options, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}={value!r} must be an integer, at least 1")


def check_choice(options: object, name: str, choices: Sequence[str]) -> None:
    """The named attribute is one of the choices.

    Raises:
        ValueError: listing them.
    """
    value = getattr(options, name)
    if value not in choices:
        raise ValueError(f"{name}={value!r} is unknown: choose one of {', '.join(choices)}")


def check_flag(options: object, *names: str) -> None:
    """Each named attribute is True or False; the text ``"false"`` would count as true.

    Raises:
        ValueError: naming the first that is anything else.
    """
    for name in names:
        value = getattr(options, name)
        if not isinstance(value, bool):
            raise ValueError(f"{name}={value!r} must be true or false")
