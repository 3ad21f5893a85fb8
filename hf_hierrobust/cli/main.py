"""Console script ``hf-hierrobust``: a command line is read and checked before torch is imported for it."""

from __future__ import annotations

import difflib
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

from ..progress import say
from .help import SUMMARY, help_text
from .parser import PARSED, parser_of
from .plugins import load_plugins
from .values import one_line, read_values

COMMANDS = tuple(SUMMARY)
USER_ERRORS = (ValueError, LookupError, OSError, ImportError, TypeError, ArithmeticError, NotImplementedError)
"""What inputs that do not work raise, with one sentence; others are faults of the program."""


def main(argv: Sequence[str] | None = None) -> None:
    """``hf-hierrobust COMMAND [options]``.

    Raises:
        SystemExit: 2 with one sentence on stderr, if the command line is refused.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    command = argv[0] if argv else "--help"
    if command in ("-h", "--help", "--help-all", "help"):
        print("usage: hf-hierrobust COMMAND [options]\n")
        for name, text in SUMMARY.items():
            print(f"  {name:10} {text} Options: hf-hierrobust {name} --help")
        return
    if command == "--version":
        from .. import __version__

        print(__version__)
        return
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f": did you mean {near[0]!r}?" if near else f": choose one of {', '.join(COMMANDS)}"
        print(f"hf-hierrobust: error: {command!r} is no command{hint}", file=sys.stderr)
        raise SystemExit(2)
    run_command(command, argv[1:])


def run_command(command: str, argv: Sequence[str] | None = None, defaults: dict | None = None) -> None:
    """One command; an error of the user's is one sentence on stderr and exit status 2.

    Args:
        command: one of `COMMANDS`.
        argv: words after the command; None reads ``sys.argv``.
        defaults: options that the calling script presets, weaker than config and flags; of ``train`` and
            ``evaluate``.

    Raises:
        SystemExit: 2, if the command line is refused. ``--debug`` shows the traceback as well.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    argv = [word for word in argv if word != "--debug"]
    if any(word in ("-h", "--help", "--help-all") for word in argv):
        own = command in PARSED
        print(parser_of(command).format_help() if own else help_text(command, "--help-all" in argv))
        return
    try:
        if command in PARSED:
            parser_of(command).run(argv)
            return
        values = read_values(command, argv, defaults)
        from .checks import check_early

        check_early(command, values)
        load_plugins(values.get("plugins"))
        say("loading torch and transformers")
        import_module(f".{command}", __package__).run(values)
    except BrokenPipeError:  # whoever read the output has seen enough; nothing is left to flush to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except USER_ERRORS as error:
        if debug:
            traceback.print_exc()
        more = "" if debug else " (--debug shows the traceback)"
        print(f"hf-hierrobust {command}: error: {one_line(error)}{more}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
