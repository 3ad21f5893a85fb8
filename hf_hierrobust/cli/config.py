"""Dataclass arguments from a YAML file and flags, flags winning."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from transformers import HfArgumentParser


class ConfigError(ValueError):
    """A YAML config that cannot be used."""


def parse_with_config(
    dataclasses: Sequence[type], argv: Sequence[str] | None = None, defaults: Mapping | None = None
) -> tuple:
    """Parse ``--config file.yaml`` and flags into dataclass instances; a flag wins over the file.

    Args:
        defaults: weaker than both.

    Raises:
        ConfigError: no such file, not a mapping, or keys that no argument has.
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
        actions = {action.dest: action for action in parser._actions}
        unknown = sorted(set(values) - set(actions))
        if unknown:
            raise ConfigError(f"{known.config} has unknown options {unknown}; see --help for all")
        # Scientific notation without a dot is a string in YAML 1.1; argparse converts string defaults.
        parser.set_defaults(**{k: str(v) if actions[k].type is float else v for k, v in values.items()})
        for key in values:
            actions[key].required = False
    parsed = parser.parse_args_into_dataclasses(args=rest)
    return tuple(parsed[: len(dataclasses)])  # the last is a namespace that holds only --config


def _read(path: str) -> dict:
    if not Path(path).is_file():
        raise ConfigError(f"config={path!r} is not a file")
    values = yaml.safe_load(Path(path).read_text()) or {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must map option names to values, it holds a {type(values).__name__}")
    return values
