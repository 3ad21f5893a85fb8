"""``tree show``: levels, counts, self-loops and prompts of class trees, as text, JSON or a figure."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..naming import check_template
from .checks import check_tree
from .parser import check_folder
from .values import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "hf-hierrobust tree show SPEC [--name value …]"
    parser.add_argument("action", metavar="show", choices=["show"], help="What to do with the tree.")
    parser.add_argument(
        "spec",
        metavar="SPEC",
        help="Built-in name, JSON file, or a comma-separated list of these; 'wordnet' with --classes, "
        "'induced' with --classes and --model.",
    )
    parser.add_argument(
        "--classes", help="Class set (name or JSON file) or names 'a, b, c' that the tree is aligned to."
    )
    parser.add_argument("--template", help="Prompt template; by default the class set's own.")
    parser.add_argument("--model", help="Model whose text embeddings 'induced' groups.")
    parser.add_argument("--json", action="store_true", help="Print JSON.")
    parser.add_argument("--prompts", action="store_true", help="Print the prompts of every node.")
    parser.add_argument("--figure", metavar="PATH", help="Also draw the tree as PATH.png and PATH.svg.")


def check(args: argparse.Namespace) -> None:
    """What is wrong without asking torch."""
    words = [args.spec] if Path(args.spec).is_file() else [w.strip() for w in args.spec.split(",")]
    for word in words:
        check_tree("SPEC", word)
    if args.template is not None:
        check_template("template", args.template)
    needs = {"wordnet": ("classes",), "induced": ("classes", "model")}
    for word, names in needs.items():
        if word in words:
            for name in names:
                if getattr(args, name) is None:
                    raise UsageError(f"SPEC={args.spec!r} is built from the classes: give --{name}")
    if args.model is not None and "induced" not in words:
        raise UsageError(f"model={args.model!r} has no effect on SPEC={args.spec!r}: 'induced' asks a model")
    if args.json and args.prompts:
        raise UsageError("prompts has no effect beside json, which holds them: leave it out")
    if args.figure is not None:
        check_folder("figure", str(Path(args.figure).parent))


def run(args: argparse.Namespace) -> None:
    """Print the trees, and draw them where asked."""
    from ..runs.trees import describe_trees, open_trees, trees_text

    opened = open_trees(args.spec, classes=args.classes, template=args.template, model=args.model)
    described = describe_trees(opened)
    if args.json:
        print(json.dumps(described, indent=1, ensure_ascii=False))
    else:
        print(trees_text(described, prompts=args.prompts))
    if args.figure is not None:
        from ..reports.figure_io import save_png_and_svg
        from ..reports.tree_plot import plot_tree

        for number, (tree, names) in enumerate(opened.shown()):
            stem = args.figure if number == 0 else f"{args.figure}-{number + 1}"
            save_png_and_svg(plot_tree(names, tree.parents, title=tree.name), stem)
