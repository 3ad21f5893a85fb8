"""From flags and a YAML file to typed option values, flags winning; nothing here needs torch."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..files import read_yaml
from ..runs.arguments import SEVERAL
from .options import OWN, RUN, Option, all_options, options_of

_TRUE, _FALSE = ("true", "yes", "y", "t", "1", "on"), ("false", "no", "n", "f", "0", "off")
_JOINED = (*SEVERAL, "tree", "lora_towers")


class UsageError(ValueError):
    """A command line or a config that cannot be used; the message is one sentence."""


def read_values(command: str, argv: Sequence[str], defaults: Mapping | None = None) -> dict:
    """The options of a command, by name.

    Args:
        command: "train" or "evaluate".
        argv: words after the command.
        defaults: weaker than the config, which is weaker than flags.

    Raises:
        UsageError: unknown, repeated or misplaced options, values of the wrong kind, an unusable config.
    """
    flags = _flags(command, argv)
    path = flags.pop("config", None)
    values = dict(defaults or {})
    if path is not None:
        values |= _config(command, path)
    return values | flags


def _flags(command: str, argv: Sequence[str]) -> dict:
    options, found, place = options_of(command), {}, 0
    words = list(argv)
    while place < len(words):
        word = words[place]
        place += 1
        if not word.startswith("--") or word == "--":
            raise UsageError(f"{word!r} belongs to no option: options are --name value")
        flag, sign, attached = word[2:].partition("=")
        name = flag.replace("-", "_")
        given = [attached] if sign else []
        while not sign and place < len(words) and not _is_flag(words[place]):
            given.append(words[place])
            place += 1
        if name.startswith("no_") and name not in options and _is_switch(options.get(name[3:])):
            name, given = name[3:], [*given, "false"]
        if name not in options:
            raise UsageError(_unknown(f"--{flag}", name, command))
        if name in found:
            raise UsageError(f"--{name} is given twice: leave one out")
        found[name] = _from_words(options[name], given)
    return found


def _is_flag(word: str) -> bool:
    return word.startswith("--")


def _is_switch(option: Option | None) -> bool:
    return option is not None and option.kind in ("bool", "switch")


def _unknown(shown: str, name: str, command: str) -> str:
    if name in all_options():
        return f"{shown} is an option of train that {command} does not use: leave it out"
    near = difflib.get_close_matches(name, options_of(command), n=1)
    prefix = "--" if shown.startswith("--") else ""
    hint = f": did you mean {prefix}{near[0]}?" if near else f": see {command} --help-all"
    return f"{shown} is no option of {command}{hint}"


def _from_words(option: Option, words: list[str]) -> object:
    """The value of a flag from the words after it."""
    if not words:
        if _is_switch(option):
            return True
        raise UsageError(f"--{option.name} needs a value, e.g. --{option.name} {_example(option)}")
    if option.kind == "list":
        return words if len(words) > 1 or "str" not in _outer(option) else words[0]
    if len(words) == 1:
        return convert(option, words[0], "--")
    if option.name in _JOINED:
        return ",".join(words)
    raise UsageError(
        f"--{option.name} takes one value, got {len(words)}: {' '.join(words)!r} (quote a value with blanks)"
    )


def _outer(option: Option) -> list[str]:
    return [part.strip() for part in option.annotation.split("|")]


def _example(option: Option) -> str:
    if option.choices:
        return option.choices[0]
    return {"int": "10", "float": "0.001", "dict": "'{\"name\": 1}'"}.get(option.kind) or (
        str(option.default) if isinstance(option.default, str) and option.default else "VALUE"
    )


def convert(option: Option, value: object, prefix: str = "") -> object:
    """A value of a flag (text) or of YAML (text, number, bool, list or mapping) as its option wants it.

    Raises:
        UsageError: it is of another kind.
    """
    shown = f"{prefix}{option.name}={value!r}"
    if value is None:
        if option.optional:
            return None
        raise UsageError(f"{option.name} is empty: give it a value, or leave the line out")
    kind = option.kind
    if kind == "dict":
        return _mapping(value, shown)
    if kind == "list":
        return [str(part) for part in value] if isinstance(value, (list, tuple)) else str(value)
    if option.name == "tree" and isinstance(value, (list, tuple, Mapping)):
        return value
    if option.name == "zero_shot" and isinstance(value, Mapping):
        return value
    if option.name in _JOINED and isinstance(value, (list, tuple)):
        return ",".join(str(part) for part in value)
    if isinstance(value, (list, tuple, Mapping)):
        raise UsageError(
            f"{shown} takes one value, not a {'mapping' if isinstance(value, Mapping) else 'list'}"
        )
    if kind in ("bool", "switch"):
        return _switch(value, kind, shown)
    if isinstance(value, bool):
        raise UsageError(
            f"{option.name}: YAML reads yes, no, on and off as booleans; put the word in quotes"
            if kind == "str"
            else f"{shown} must be a number"
        )
    if kind == "int":
        return _number(value, int, shown, "a whole number")
    if kind == "float":
        return _number(value, float, shown, "a number")
    text = str(value)
    if option.choices and text not in option.choices:
        near = difflib.get_close_matches(text, option.choices, n=1)
        hint = f": did you mean {near[0]!r}?" if near else f": choose one of {', '.join(option.choices)}"
        raise UsageError(f"{shown} is unknown{hint}")
    return text


def _switch(value: object, kind: str, shown: str) -> object:
    text = str(value).lower()
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if kind == "switch":  # auto, or a path
        return str(value)
    raise UsageError(f"{shown} must be true or false")


def _number(value: object, kind: type, shown: str, wanted: str) -> int | float:
    try:
        number = kind(value) if isinstance(value, str) or kind is float else int(str(value))
    except ValueError:
        raise UsageError(f"{shown} must be {wanted}") from None
    return number


def _mapping(value: object, shown: str) -> object:
    """A mapping, or text that is one: JSON, checked here, or what its own reader takes, e.g. a file."""
    if isinstance(value, Mapping):
        return dict(value)
    if not isinstance(value, str):
        raise UsageError(f"{shown} must be a mapping of options to values")
    if not value.lstrip().startswith(("{", "[")) and Path(value).suffix != "":
        return value  # a file: deepspeed, fsdp_config
    try:
        parsed = json.loads(value)
    except json.JSONDecodeError as error:
        raise UsageError(f"{shown} is not JSON ({error}): write e.g. '{{\"name\": 1}}'") from None
    if not isinstance(parsed, dict):
        raise UsageError(f"{shown} must be a JSON object, e.g. '{{\"name\": 1}}'")
    return parsed


def _config(command: str, path: str) -> dict:
    """The values of a YAML file."""
    options, values = options_of(command), _yaml(path)
    named = {str(key).replace("-", "_"): value for key, value in values.items()}
    for name in named:
        if name == "config":
            raise UsageError(f"{path}: a config cannot name another config: leave the line out")
        if name not in options:
            raise UsageError(f"{path}: {_unknown(name, name, command)}")
    try:
        return {name: convert(options[name], value) for name, value in named.items()}
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _yaml(path: str) -> dict:
    if not Path(path).is_file():
        raise UsageError(f"--config={path!r} is not a file")
    values = read_yaml(path)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UsageError(f"{path} must map option names to values, it holds a {type(values).__name__}")
    return values


def one_line(error: object, longest: int = 600) -> str:
    """What an error says, on one line."""
    if isinstance(error, KeyError) and error.args:
        error = error.args[0]  # its text is in quotes otherwise
    if isinstance(error, OSError) and error.strerror and error.filename:
        error = f"{error.filename}: {error.strerror}"
    text = " ".join(str(error).split())
    return text if len(text) <= longest else f"{text[:longest]}…"


def split_values(values: Mapping) -> tuple[dict, dict]:
    """Values of the run and values of the training arguments."""
    options = all_options()
    parts: tuple[dict, dict] = ({}, {})
    for name, value in values.items():
        if options[name].origin != OWN:
            parts[options[name].origin != RUN][name] = value
    return parts
