"""Console script ``hf-hierrobust``: a dispatcher that imports torch only once a command is known."""

from __future__ import annotations

import sys

COMMANDS = {
    "train": "train a robust model, measure and describe it",
    "evaluate": "measure clean and robust accuracy of a checkpoint",
}


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    command = argv[0] if argv else "--help"
    if command in ("-h", "--help"):
        print("usage: hf-hierrobust COMMAND [options]\n")
        for name, text in COMMANDS.items():
            print(f"  {name:10} {text}; options: hf-hierrobust {name} --help")
        return
    if command not in COMMANDS:
        sys.exit(f"hf-hierrobust: unknown command {command!r}, choose from {', '.join(COMMANDS)}")
    if command == "train":
        from .train import main as run
    else:
        from .evaluate import main as run
    run(argv[1:])
