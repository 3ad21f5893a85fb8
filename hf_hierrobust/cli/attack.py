"""``attack``: one image, attacked; the adversarial PNG and what the model says before and after."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..naming import MACHINE_PATH, check_template
from ..options import check_given
from ..progress import say
from ..threat import parse_eps
from .checks import check_attacks, check_tree
from .parser import check_new
from .values import UsageError

FILES = ("adversarial.png", "perturbation.png", "attack.json", "figure.png")
"""What a run writes; the figure only where matplotlib is there."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    parser.usage = "hf-hierrobust attack IMAGE --labels 'a, b, c' | --tree T --model M [--name value …]"
    add("image", metavar="IMAGE", help="Image file.")
    add("--model", required=True, help="CLIP or SigLIP checkpoint (folder or Hub id).")
    add("--labels", help="Class names, comma-separated, or a class set (name or JSON file).")
    add(
        "--tree", help="Class tree (name or JSON file): its leaves are the classes where --labels names none."
    )
    add("--true", help="The image's class; by default what the model takes the clean image for.")
    add("--eps", default="4/255", help="Budget [4/255].")
    add("--norm", default="linf", choices=["linf", "l2"], help="Norm of the budget [linf].")
    add(
        "--space",
        default="native",
        choices=["native", "model"],
        help="Perturb the image as it is, or resized to the model's input [native].",
    )
    add("--attack", default="pgd", help="Attacks, comma-separated, as for evaluate [pgd].")
    add("--level", type=int, default=0, help="Level of the tree to attack: 0 are the leaves [0].")
    add("--classifier", default="cosine", choices=["cosine", "hyperbolic"], help="Scores [cosine].")
    add("--template", help="Prompt template; by default the one the model was trained with.")
    add("--seed", type=int, default=0, help="Seed of random starts [0].")
    add("-o", "--output_dir", default="attacked", help="Folder for all files [attacked].")
    add("--overwrite", action="store_true", help="Replace the files of an earlier attack there.")
    add("--plugins", help="Python files with attacks of your own, comma-separated.")


def check(args: argparse.Namespace) -> None:
    """What is wrong without asking torch."""
    path = Path(args.image).expanduser()
    if not path.is_file():
        raise UsageError(f"IMAGE={args.image!r} is not a file")
    if args.labels is None and args.tree is None:
        raise UsageError("no classes: give --labels 'a, b, c' or --tree")
    for word in (args.tree or "").split(","):
        if args.tree is not None and not Path(args.tree).is_file():
            check_tree("tree", word.strip())
    parse_eps(args.eps, "eps", args.norm)
    if args.template is not None:
        check_template("template", args.template)
    if args.level and args.tree is None:
        raise UsageError(f"level={args.level} needs a class tree: give --tree")
    if args.level < 0:
        raise UsageError(f"level={args.level} must be at least 0, the leaves")
    check_given(seed=args.seed)
    if not args.plugins:
        check_attacks("attack", args.attack)
    if MACHINE_PATH.match(args.model) and not Path(args.model).expanduser().is_dir():
        raise UsageError(f"model={args.model!r} holds no checkpoint: there is no such folder")
    check_new("output_dir", args.output_dir, FILES, args.overwrite)


def run(args: argparse.Namespace) -> None:
    """Attack the image, write the files and print what the model says."""
    from .plugins import load_plugins

    load_plugins(args.plugins)
    say("loading torch and transformers")
    from ..runs.attack_files import attack_text, write_attack
    from ..runs.attack_image import attack_image

    found = attack_image(
        args.model,
        args.image,
        labels=args.labels,
        tree=args.tree,
        true=args.true,
        attack=args.attack,
        eps=args.eps,
        norm=args.norm,
        space=args.space,
        level=args.level,
        classifier=args.classifier,
        template=args.template,
        seed=args.seed,
    )
    files = write_attack(found, args.output_dir)
    print(attack_text(found))
    print(f"written to {args.output_dir}: {', '.join(files)}")
