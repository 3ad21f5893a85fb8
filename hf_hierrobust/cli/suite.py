"""``suite``: several models on the zero-shot data sets, on the same images, into one leaderboard."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..files import read_json
from ..naming import MACHINE_PATH
from ..options import check_given
from ..progress import say
from ..threat import parse_eps
from .checks import CLASSIFIERS, check_attacks, check_existing, one_of
from .options import PACKAGE, shipped
from .parser import check_folder
from .values import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    parser.usage = "hf-hierrobust suite MODEL… -o DIR [--sets a,b=path,…] [--name value …]"
    add("models", metavar="MODEL", nargs="*", help="CLIP or SigLIP checkpoints (folders or Hub ids).")
    add("-o", "--output_dir", help="Folder for records, samples and the leaderboard; an old one goes on.")
    add(
        "--sets",
        nargs="+",
        help="Data sets, comma-separated or as words: a name of the suite, or name=source for a local copy "
        "(parquet, image folder, webdataset tars) or another Hub id; by default all from the Hub.",
    )
    add("--samples", default="1000", help="Images of each set, stratified by class, or 'all' [1000].")
    add("--attack", default="pgd", help="Attacks, comma-separated, as for evaluate [pgd].")
    add("--eps", default="1/255", help="Budgets, comma-separated [1/255].")
    add("--norm", default="linf", choices=["linf", "l2"], help="Norm of the budgets [linf].")
    add(
        "--space",
        default="auto",
        choices=["auto", "native", "model"],
        help="Where perturbations live; auto: native where a set's images have one size, else model [auto].",
    )
    add("--levels", action="store_true", help="Measure the superclasses too, where a set has a tree.")
    add("--classifiers", help="Classifiers to evaluate, comma-separated; by default the usual ones.")
    add("--num_steps", type=int, help="Steps of the attacks; by default their own.")
    add("--attack_args", help="Further options of the attacks, as JSON.")
    add("--batch", type=int, default=250, help="Images a batch [250].")
    add("--seed", type=int, default=0, help="Seed of random starts [0].")
    add("--bf16_search", default="auto", choices=["auto", "true", "false"], help="As for evaluate [auto].")
    add("--plugins", help="Python files with attacks of your own, comma-separated.")
    add("--no_figures", action="store_true", help="Draw none.")
    add("--list", action="store_true", help="List the data sets and stop.")


def check(args: argparse.Namespace) -> None:
    """What is wrong without asking torch."""
    if args.list:
        return
    if not args.models or args.output_dir is None:
        raise UsageError("give at least one MODEL and -o, the folder for the results; --list shows the sets")
    for model in args.models:
        if MACHINE_PATH.match(model) and not (Path(model).expanduser() / "config.json").is_file():
            raise UsageError(f"MODEL={model!r} holds no checkpoint (no config.json there)")
    if twice := sorted({model for model in args.models if args.models.count(model) > 1}):
        raise UsageError(f"MODEL={twice[0]!r} is given twice: leave one out")
    chosen_sets(args.sets)
    if args.samples != "all" and (not args.samples.isdigit() or int(args.samples) < 1):
        raise UsageError(f"samples={args.samples!r} must be a number of images, at least 1, or 'all'")
    for eps in args.eps.split(","):
        parse_eps(eps.strip(), "eps", args.norm)
    check_given(batch=args.batch, num_steps=args.num_steps, seed=args.seed)
    if not args.plugins:
        check_attacks("attack", args.attack)
    for word in args.classifiers.split(",") if args.classifiers is not None else ():
        one_of("classifiers", word.strip(), CLASSIFIERS)
    if args.levels and args.sets is not None and not any(map(_has_tree, chosen_sets(args.sets))):
        raise UsageError(f"levels has no effect on {' '.join(args.sets)}: none of these sets has a tree")
    attack_options(args)
    check_folder("output_dir", args.output_dir)


def run(args: argparse.Namespace) -> None:
    """Measure, and say what the leaderboard holds."""
    if args.list:
        print(suite_text())
        return
    from .plugins import load_plugins

    load_plugins(args.plugins)
    say("loading torch and transformers")
    from ..reports.leaderboard_text import leaderboard_markdown
    from ..runs.suite import SuiteRequest, evaluate_suite

    names = args.classifiers
    request = SuiteRequest(
        attack=args.attack,
        eps=args.eps,
        norm=args.norm,
        space=args.space,
        samples=None if args.samples == "all" else int(args.samples),
        levels=args.levels,
        classifiers=[name.strip() for name in names.split(",")] if names else None,
        batch_size=args.batch,
        bf16_search=args.bf16_search,
        seed=args.seed,
        attack_options=attack_options(args),
    )
    written = evaluate_suite(
        args.models, args.output_dir, chosen_sets(args.sets), request, figures=not args.no_figures
    )
    if written is None:  # another process says it
        return
    print(leaderboard_markdown(written.board))
    print(f"written to {args.output_dir}: {', '.join(written.files)}")


def chosen_sets(words: list[str] | None) -> dict[str, str | None] | None:
    """Sources by name, None for the Hub's; None for the whole suite.

    Raises:
        UsageError: an unknown or repeated name, or a path that is not there.
    """
    if words is None:
        return None
    found: dict[str, str | None] = {}
    for pair in (part.strip() for word in words for part in word.split(",") if part.strip()):
        name, sign, source = pair.partition("=")
        if not name.endswith(".json"):
            one_of("sets", name, shipped("data/suite"))
        elif not Path(name).is_file():
            raise UsageError(f"sets={name!r} is not a file")
        if name in found:
            raise UsageError(f"sets: {name!r} is given twice: leave one out")
        if sign:
            if not source:
                raise UsageError(f"sets={pair!r} must be name=source, e.g. cifar10=cifar10/test.parquet")
            check_existing("sets", source)
        found[name] = source or None
    return found


def attack_options(args: argparse.Namespace) -> dict:
    """Options of the attacks.

    Raises:
        UsageError: ``attack_args`` is no JSON object, or says again what another option says.
    """
    try:
        options = json.loads(args.attack_args or "{}")
    except json.JSONDecodeError as error:
        raise UsageError(f"attack_args={args.attack_args!r} is not JSON: {error}") from None
    if not isinstance(options, dict) or options.keys() & {"eps", "norm", "space"}:
        raise UsageError(f"attack_args={args.attack_args!r} must be an object without eps, norm and space")
    if args.num_steps is not None and "num_steps" in options:
        raise UsageError(f"num_steps={args.num_steps} and attack_args both set num_steps: give it once")
    return options | ({} if args.num_steps is None else {"num_steps": args.num_steps})


def _has_tree(name: str) -> bool:
    path = Path(name) if name.endswith(".json") else PACKAGE / "data/suite" / f"{name}.json"
    found = read_json(path)
    return isinstance(found, dict) and found.get("tree") is not None


def suite_text() -> str:
    """The data sets of the suite, one a line."""
    lines = [f"{'name':14}  {'classes':>7}  {'images':>7}  {'split':21}  {'Hub id':36}  tree"]
    for name in shipped("data/suite"):
        one = read_json(PACKAGE / "data/suite" / f"{name}.json")
        counts = f"{one['num_classes']:7}  {one['num_images']:7}"
        where = f"{one['split']:21}  {one['hub_id']:36}"
        lines.append(f"{name:14}  {counts}  {where}  {one['tree'] or '–'}")
    return "\n".join(lines)
