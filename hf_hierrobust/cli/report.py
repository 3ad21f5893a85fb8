"""``report``: records of many models and runs as one leaderboard with figures."""

from __future__ import annotations

import argparse
from pathlib import Path

from .checks import check_tree
from .parser import check_new
from .values import UsageError

FILES = ("leaderboard.md", "leaderboard.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    parser.usage = "hf-hierrobust report RECORDS… -o DIR [--name value …]"
    add(
        "records",
        metavar="RECORDS",
        nargs="+",
        help="Files of records (results.json, JSON lines), folders of runs and suites, or folders of these.",
    )
    add("-o", "--output_dir", required=True, help="Folder for leaderboard.md, leaderboard.json and figures/.")
    add("--tree", help="Tree that orders the per-class figures where the records name no built-in one.")
    add("--no_figures", action="store_true", help="Draw none.")
    add("--overwrite", action="store_true", help="Replace a leaderboard that is there.")


def check(args: argparse.Namespace) -> None:
    """What is wrong without asking torch."""
    for source in args.records:
        if not Path(source).expanduser().exists():
            raise UsageError(f"RECORDS={source!r} is no file and no folder")
    if args.tree is not None and args.no_figures:
        raise UsageError(f"tree={args.tree!r} has no effect beside no_figures: it orders figures")
    if args.tree is not None:
        check_tree("tree", args.tree)
    check_new("output_dir", args.output_dir, FILES, args.overwrite)


def run(args: argparse.Namespace) -> None:
    """Write the leaderboard and say what is in it."""
    from ..runs.leaderboard import write_leaderboard

    written = write_leaderboard(args.records, args.output_dir, tree=args.tree, figures=not args.no_figures)
    board = written.board
    print(
        f"{len(board.records)} records, {len({row.model for row in board.rows})} models, "
        f"{len(board.tables)} tables; written to {args.output_dir}: {', '.join(written.files)}"
    )
    for note in board.notes:
        print(f"note: {note}")
