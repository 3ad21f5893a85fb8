"""Commands with positional words and few options of their own, read by argparse; nothing here needs torch."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from .help import SUMMARY
from .values import UsageError

PARSED = ("attack", "convert", "push", "report", "suite", "tree")


class CommandParser(argparse.ArgumentParser):
    """The parser of one command: errors are `UsageError`, ``--like-this`` is ``--like_this``.

    The command's module has ``add_arguments(parser)``, ``check(args)``, which needs no torch, and
    ``run(args)``.
    """

    def __init__(self, command: str):
        super().__init__(
            f"hf-hierrobust {command}",
            description=SUMMARY[command],
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.module = import_module(f".{command}", __package__)
        self.module.add_arguments(self)

    def error(self, message: str):
        raise UsageError(message)

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """The options.

        Raises:
            UsageError: something is unknown, missing, repeated or of the wrong kind.
        """
        words = [_underscored(word) for word in argv]
        flags = [word.partition("=")[0] for word in words if word.startswith("--")]
        if twice := sorted({flag for flag in flags if flags.count(flag) > 1}):
            raise UsageError(f"{twice[0]} is given twice: leave one out")
        args, unknown = self.parse_known_args(words)
        for word in unknown:
            known = [flag for action in self._actions for flag in action.option_strings]
            near = difflib.get_close_matches(word.partition("=")[0], known, n=1)
            hint = f": did you mean {near[0]}?" if near else ": see --help"
            raise UsageError(f"{word!r} is nothing that this command takes{hint}")
        return args

    def run(self, argv: Sequence[str]) -> None:
        """Read, check and do it."""
        args = self.read(argv)
        self.module.check(args)
        self.module.run(args)


def parser_of(command: str) -> CommandParser:
    """The parser of one of `PARSED`."""
    return CommandParser(command)


def check_folder(name: str, folder: str) -> None:
    """An output folder is a folder, or can become one.

    Raises:
        UsageError: it, or something above it, is a file.
    """
    path = Path(folder).expanduser().absolute()
    for place in (path, *path.parents):
        if place.exists():
            if not place.is_dir():
                raise UsageError(f"{name}={folder!r} is or lies below a file: give a folder")
            return


def check_new(name: str, folder: str, files: Sequence[str], overwrite: bool) -> None:
    """Refuse an output folder that holds results already.

    Raises:
        UsageError: one of the files is there, and ``overwrite`` is not said.
    """
    check_folder(name, folder)
    found = [file for file in files if (Path(folder).expanduser() / file).exists()]
    if found and not overwrite:
        raise UsageError(
            f"{name}={folder!r} already holds {found[0]}: --overwrite replaces it, or choose another folder"
        )


def _underscored(word: str) -> str:
    flag, sign, value = word.partition("=")
    return flag[:2] + flag[2:].replace("-", "_") + sign + value if word.startswith("--") else word
