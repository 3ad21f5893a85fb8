"""Train a robust model, measure it beside its base, and write everything down."""

from __future__ import annotations

from ..reports import records_table
from ..runs.arguments import RunArguments
from ..runs.train import train
from ..training import RobustTrainingArguments
from .config import parse_with_config


def main(argv: list[str] | None = None, **defaults) -> None:
    """One run from flags or a YAML config to a checkpoint, ``results.json``, figures and a card.

    Args:
        argv: command line; None reads ``sys.argv``.
        defaults: options that the calling script presets, weaker than config and flags.
    """
    args, training_args = parse_with_config((RunArguments, RobustTrainingArguments), argv, defaults=defaults)
    if records := train(args, training_args):
        print(records_table(records))
