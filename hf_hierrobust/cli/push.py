"""``push``: a run's folder, uploaded to the Hub: checkpoint, adapter, trees, records, figures and card."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from ..naming import check_hub_id
from ..progress import say
from .values import UsageError

_BRANCH = re.compile(r"(?!.*\.\.)(?!.*//)[\w][\w./-]{0,200}(?<![./])", re.ASCII)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    parser.usage = "hf-hierrobust push DIR REPO [--name value …]"
    add("folder", metavar="DIR", help="Output folder of a training run.")
    add("repo", metavar="REPO", help="Repository on the Hub: namespace/name, or a name of your own.")
    add("--private", action="store_true", help="A new repository is seen by you alone.")
    add("--revision", help="Branch, made where it is not there [main].")
    add("--create_pr", action="store_true", help="Open a pull request instead of committing.")
    add("--message", default="Upload robust CLIP checkpoint", help="First line of the commit.")


def check(args: argparse.Namespace) -> None:
    """What is wrong without asking torch or the Hub."""
    if not Path(args.folder).expanduser().is_dir():
        raise UsageError(f"DIR={args.folder!r} is no folder: give the output folder of a run")
    try:
        check_hub_id("REPO", args.repo if "/" in args.repo else f"namespace/{args.repo}", "you/robust-clip")
    except ValueError:
        raise UsageError(
            f"REPO={args.repo!r} is no id on the Hub: give namespace/name, or a name of your own"
        ) from None
    if args.revision is not None and not _BRANCH.fullmatch(args.revision):
        raise UsageError(f"revision={args.revision!r} is no name of a branch, such as v1 or refs/pr/3")
    if not args.message.strip():
        raise UsageError("message is empty: say what the commit brings")


def run(args: argparse.Namespace) -> None:
    """Check the folder, upload what is new, and say where it is."""
    say("loading torch and transformers")
    from ..runs.push import push

    print(
        push(
            args.folder,
            args.repo,
            private=args.private or None,
            revision=args.revision,
            create_pr=args.create_pr,
            commit_message=args.message,
        )
    )
