"""``train``: a run from flags or a YAML config to a checkpoint, ``results.json``, figures and a card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .arguments import build_arguments
from .main import run_command


def main(argv: Sequence[str] | None = None, **defaults) -> None:
    """The command, for scripts.

    Args:
        argv: command line; None reads ``sys.argv``.
        defaults: options that the calling script presets, weaker than config and flags.

    Raises:
        SystemExit: 2 with one sentence on stderr, if the command line is refused.
    """
    run_command("train", argv, defaults)


def run(values: Mapping) -> None:
    """Train with options that have been read and checked, and print what was measured."""
    from ..reports import depth_table, records_table
    from ..runs.train import train

    if records := train(*build_arguments(values)):
        print("\n".join(filter(None, (records_table(records), depth_table(records)))))
