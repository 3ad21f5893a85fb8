"""Dataclass arguments from a YAML file and flags, flags winning."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from transformers import HfArgumentParser
from transformers.hf_argparser import string_to_bool


class ConfigError(ValueError):
    """A YAML config that cannot be used."""


def parse_with_config(
    dataclasses: Sequence[type], argv: Sequence[str] | None = None, defaults: Mapping | None = None
) -> tuple:
    """Parse ``--config file.yaml`` and flags into dataclass instances; a flag wins over the file.

    Args:
        defaults: weaker than both.

    Raises:
        ConfigError: no such file, no YAML mapping, keys that no argument has, or values of the wrong kind.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--config")
    known, rest = first.parse_known_args(argv)
    parser = HfArgumentParser(dataclasses)
    parser.add_argument("--config", help="YAML file with any of these options; flags win over it.")
    parser.set_defaults(**(defaults or {}))
    if known.config is not None:
        values = _read(known.config)
        actions = {}
        for action in parser._actions:  # a switch that is on comes twice, the second time as --no_…
            actions.setdefault(action.dest, action)
        unknown = sorted(set(values) - set(actions) | {"config", "help"} & set(values))
        if unknown:
            near = difflib.get_close_matches(unknown[0], actions, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ConfigError(f"{known.config} has unknown options {unknown}{hint}; see --help for all")
        parser.set_defaults(**{key: _as_flag(key, value, actions[key]) for key, value in values.items()})
        for key in values:
            actions[key].required = False
    parsed = parser.parse_args_into_dataclasses(args=rest)
    return tuple(parsed[: len(dataclasses)])  # the last is a namespace that holds only --config


def _as_flag(key: str, value: object, action: argparse.Action) -> object:
    """A YAML value as argparse expects it: text, which argparse converts as it would a flag's.

    YAML 1.1 reads 1e-3 as text, 1 as no float, and no as false.

    Raises:
        ConfigError: a value of the wrong kind.
    """
    switch = action.type is string_to_bool or action.const == "true"
    if isinstance(value, bool) and not switch and key != "resume_from_checkpoint":
        raise ConfigError(f"{key}: YAML reads yes, no, on and off as booleans; put the word in quotes")
    if isinstance(value, (bool, int, float)):
        return str(value)
    return value


def _read(path: str) -> dict:
    if not Path(path).is_file():
        raise ConfigError(f"config={path!r} is not a file")
    try:
        values = yaml.safe_load(Path(path).read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must map option names to values, it holds a {type(values).__name__}")
    return values
