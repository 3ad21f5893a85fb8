"""From option values to argument objects: the first step of a command that needs the Hugging Face stack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..runs.arguments import RunArguments
from .plugins import load_plugins
from .values import split_values

if TYPE_CHECKING:
    from ..training import RobustTrainingArguments


def build_arguments(values: Mapping) -> tuple[RunArguments, RobustTrainingArguments]:
    """The arguments of a run, after the plugins that may define its objective and attack.

    Args:
        values: options by name, as from `read_values`.
    """
    load_plugins(values.get("plugins"))
    from ..training import RobustTrainingArguments

    run, training = split_values(values)
    return RunArguments(**run), RobustTrainingArguments(**training)
