"""Checks of options of objectives, attacks and runs: they may come from JSON or YAML and hold anything."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from numbers import Integral


def json_mapping(value: dict | str | None, name: str) -> dict:
    """Options given as a mapping, as JSON text or not at all.

    Raises:
        ValueError: naming the argument, whose text is no JSON object.
    """
    if value is None or isinstance(value, dict):
        return dict(value or {})
    try:
        parsed = json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(f"{name}={value!r} is not JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise ValueError(f"{name}={value!r} must be a JSON object")
    return parsed


def named_sources(value: Mapping | Sequence | str | None, name: str) -> dict[str, str]:
    """Sources by name, from ``"cifar10=a.parquet, birds=b/"``, a list of such pairs, or a mapping.

    Raises:
        ValueError: a part that is no such pair, a name given twice, or no part at all.
    """
    if isinstance(value, Mapping):
        value = [f"{key}={source}" for key, source in value.items()]
    words = value.split(",") if isinstance(value, str) else value or ()
    found: dict[str, str] = {}
    for pair in (str(word).strip() for word in words if str(word).strip()):
        key, _, source = (part.strip() for part in pair.partition("="))
        if not key or not source:
            raise ValueError(f"{name}={pair!r} must be name=source, e.g. cifar10=data/cifar10/test.parquet")
        if key in found:
            raise ValueError(f"{name} names {key!r} twice: records could not tell the two apart")
        found[key] = source
    if value and not found:
        raise ValueError(f"{name}={value!r} names no data set: give name=source, or leave it out")
    return found


AUTO = "auto"
_SPELLINGS = {"true": True, "yes": True, "on": True, "1": True}
_SPELLINGS |= {"false": False, "no": False, "off": False, "0": False}


def read_switch(value: bool | str | None, name: str) -> bool | str:
    """True, False or "auto", however spelled; None is "auto".

    Raises:
        ValueError: naming the argument, whose value is none of the three.
    """
    text = str(AUTO if value is None else value).lower()
    if text != AUTO and text not in _SPELLINGS:
        raise ValueError(f"{name}={value!r} must be auto, true or false")
    return _SPELLINGS.get(text, AUTO)


def check_numbers(options: object, *names: str, positive: bool = False) -> None:
    """Each named attribute is a finite number, at least 0 or, with ``positive``, above 0.

    Raises:
        ValueError: naming the first option that is not.
    """

    def fits(value: object) -> bool:
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        return number and (value > 0 if positive else value >= 0)

    _check(options, names, fits, "a positive number" if positive else "a number, at least 0")


def check_counts(options: object, *names: str, least: int = 1) -> None:
    """Each named attribute is an integer, at least 1 or what is given.

    Raises:
        ValueError: naming the first option that is not.
    """

    def fits(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= least

    _check(options, names, fits, f"an integer, at least {least}")


def check_given(**values: object) -> None:
    """As `check_whole`, or None.

    Raises:
        ValueError: naming the first that is neither.
    """
    check_whole(**{name: value for name, value in values.items() if value is not None})


def check_whole(**values: object) -> None:
    """Arguments by name: ``seed`` is a whole number of 64 bits, any other one at least 1.

    Raises:
        ValueError: naming the first that is not.
    """
    for name, value in values.items():
        low, high = (-(2**63), 2**63 - 1) if name == "seed" else (1, float("inf"))
        if isinstance(value, bool) or not isinstance(value, Integral) or not low <= value <= high:
            wanted = "a whole number of 64 bits" if name == "seed" else "an integer, at least 1"
            raise ValueError(f"{name}={value!r} must be {wanted}")


def check_between(options: object, name: str, low: float, high: float) -> None:
    """The named attribute is a number from ``low`` to ``high``.

    Raises:
        ValueError: if it is not.
    """

    def fits(value: object) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high

    _check(options, [name], fits, f"a number in [{low:g}, {high:g}]")


def check_flag(options: object, *names: str) -> None:
    """Each named attribute is True or False; the text ``"false"`` would count as true.

    Raises:
        ValueError: naming the first that is anything else.
    """
    _check(options, names, lambda value: isinstance(value, bool), "true or false")


def check_choice(options: object, name: str, choices: Sequence[str]) -> None:
    """The named attribute is one of the choices.

    Raises:
        ValueError: listing them.
    """
    value = getattr(options, name)
    if value not in choices:
        raise ValueError(f"{name}={value!r} is unknown: choose one of {', '.join(choices)}")


def refuse_idle(options: object, idle: Mapping[str, str]) -> None:
    """Refuse options that differ from their default although nothing reads them.

    Args:
        options: a dataclass.
        idle: options without effect beside the others, and the words that say why.

    Raises:
        ValueError: naming the first that was set.
    """
    given = {field.name: field for field in fields(options) if field.init}
    for name, why in idle.items():
        value, field = getattr(options, name), given[name]
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if value != default:
            raise ValueError(f"{name}={value!r} has no effect {why}: leave it out")


def _check(options: object, names: Sequence[str], fits: Callable[[object], bool], wanted: str) -> None:
    for name in names:
        value = getattr(options, name)
        if not fits(value):
            raise ValueError(f"{name}={value!r} must be {wanted}")
