"""``convert``: weights of open_clip to a stock CLIP checkpoint, and a checkpoint to open_clip's form."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..naming import MACHINE_PATH
from ..progress import say
from .parser import check_new
from .values import UsageError

FILES = {
    "transformers": ("config.json", "model.safetensors"),
    "open_clip": ("open_clip_config.json", "open_clip_model.safetensors"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "hf-hierrobust convert SOURCE -o FOLDER [--base B] [--name value …]"
    add = parser.add_argument
    add(
        "source",
        metavar="SOURCE",
        help="open_clip's: folder or Hub id, or a file of weights, also of the image tower alone. Or a CLIP "
        "checkpoint of transformers.",
    )
    add("-o", "--output_dir", required=True, help="Folder to write.")
    add("--to", default="transformers", choices=list(FILES), help="Form to write [transformers].")
    add(
        "--base",
        help="CLIP (folder or Hub id) that lends what SOURCE lacks: tokenizer, normalisation, activation, "
        "and the text tower of an image tower; a folder with a tokenizer alone lends that.",
    )
    add(
        "--activation",
        choices=["quick_gelu", "gelu"],
        help="Of both towers; by default as SOURCE's config says, or the base's.",
    )
    add("--overwrite", action="store_true", help="Replace the checkpoint that is there.")


def check(args: argparse.Namespace) -> None:
    """What is wrong without asking torch."""
    for name in ("source", "base"):
        value = getattr(args, name)
        if value is not None and MACHINE_PATH.match(value) and not Path(value).expanduser().exists():
            raise UsageError(f"{name}={value!r} is not there")
    check_new("output_dir", args.output_dir, FILES["transformers"] + FILES["open_clip"], args.overwrite)


def run(args: argparse.Namespace) -> None:
    """Convert, and print what was written."""
    say("loading torch and transformers")
    from ..runs.convert import convert

    done = convert(
        args.source,
        args.output_dir,
        to=args.to,
        base=args.base,
        activation=args.activation,
        overwrite=args.overwrite,
    )
    facts = ", ".join(
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}"
        for name, value in done.facts.items()
    )
    print(f"written to {args.output_dir}: {facts}")
