"""AutoAttack on real photos: base, TeCoA, FARE, HierRobust (published, by cosine) and hier_agft.

    python benchmarks/auto_attack_photos.py train --model path/to/clip --data path/to/data
    python benchmarks/auto_attack_photos.py standard …    # AutoAttack at every level, 1/255 and 4/255
    python benchmarks/auto_attack_photos.py zero_shot …   # APGD-CE and targeted APGD on the unseen sets
    python benchmarks/auto_attack_photos.py transfer …    # crafted at one level, judged at the others, 4/255
    python benchmarks/auto_attack_photos.py table         # results/auto_attack_photos.md

Each cell is a process of the command line in its own folder. Models train once, on 10,000 photos at the
rate that ``hier_depth.py``, ``hier_cifar100.py`` and ``compare_methods.py`` found; a killed evaluation goes
on from its own state.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cells import RESULTS, ROOT, chosen_rate, load_cells, run_cells
from hier_depth import COSINE

CONFIG = ROOT / "examples/configs/baseline_cifar100_small.yaml"
ATTACK = {"eps": "4/255", "num_steps": 2, "step_size": "4/255"}
TREE = {"tree": "cifar100"}
METHODS = {
    "tecoa": ({"objective": "tecoa"}, ("hier_cifar100_search", "tecoa")),
    "fare": ({"objective": "fare"}, ("compare_methods_search", "fare")),
    "hier": ({"objective": "hier_robust"}, ("hier_depth_search", "hier")),
    "hier-cosine": (
        {"objective": "hier_robust", "objective_args": COSINE},
        ("hier_cifar100_search", "hier-cosine"),
    ),
    "hier_agft": ({"objective": "hier_agft"}, ("compare_methods_search", "hier_agft")),
}
"""Options of each method, and the search that found its rate."""
SETS = ("cifar10", "tinyimagenet", "caltech101")


def train(args: argparse.Namespace) -> dict[str, dict]:
    quick = {"eval_samples": 200, "eval_num_steps": 5, "eval_classifiers": "cosine"}
    return {
        name: method
        | ATTACK
        | TREE
        | quick
        | {
            "seed": 0,
            "learning_rate": chosen_rate(RESULTS / search, known),
            "model_name_or_path": args.model,
            "train_file": args.data / "cifar100/train.parquet",
            "eval_file": args.data / "cifar100/test.parquet",
        }
        for name, (method, (search, known)) in METHODS.items()
    }


def _measured(
    args: argparse.Namespace,
    options: dict,
    classifiers: str = "cosine,rollup",
    budgets: tuple[str, ...] = ("4/255", "1/255"),
) -> dict[str, dict]:
    """The same evaluation of the base and of every trained model, a cell a budget, the quicker first."""
    models = {"base": args.model} | {name: args.work / "train" / name for name in METHODS}
    own = {"hier": "cosine,rollup,hyperbolic,rollup-hyperbolic"} if "rollup" in classifiers else {}
    return {
        f"{name}-{eps.replace('/', '_')}": options
        | {
            "command": "evaluate",
            "model_name_or_path": model,
            "eval_classifiers": own.get(name, classifiers),
            "eval_eps": eps,
            "eval_samples": args.samples,
        }
        for eps in budgets
        for name, model in models.items()
    }


def standard(args: argparse.Namespace) -> dict[str, dict]:
    return _measured(
        args,
        TREE
        | {
            "eval_file": args.data / "cifar100/test.parquet",
            "eval_attack": "autoattack",
            "checks": True,
        },
    )


def zero_shot(args: argparse.Namespace) -> dict[str, dict]:
    first, *others = SETS
    return _measured(
        args,
        {
            "eval_file": args.data / first / "test.parquet",
            "eval_name": first,
            "class_set": first,
            "zero_shot": ",".join(f"{name}={args.data}/{name}/test.parquet" for name in others),
            "eval_attack": "apgd-ce+t",
        },
        classifiers="cosine",
    )


def transfer(args: argparse.Namespace) -> dict[str, dict]:
    return _measured(
        args,
        TREE
        | {
            "eval_file": args.data / "cifar100/test.parquet",
            "eval_attack": "pgd",
            "transfer": True,
        },
        budgets=("4/255",),
    )


STAGES = {"train": train, "standard": standard, "zero_shot": zero_shot, "transfer": transfer}


def table() -> str:
    """Clean and robust accuracy of every model, a row a data set, level and classifier."""
    rows: dict[tuple, dict[str, str]] = {}
    names = ["base", *METHODS]
    for stage in ("standard", "zero_shot"):
        cells = load_cells(RESULTS / f"auto_attack_photos_{stage}")
        for cell_name in sorted(cells):  # 1/255 before 4/255
            name = cell_name.rsplit("-", 1)[0]
            for record in cells[cell_name]["records"]:
                key = record["dataset"], record["level"], record["classifier"], record["attack"]["name"]
                found = rows.setdefault(key, {})
                text = found.get(name, f"{100 * record['clean_accuracy']:.1f}")
                found[name] = f"{text} / {100 * record['robust_accuracy']:.1f}"
    lines = [
        "Clean accuracy / under attack at each budget, in the order of the budgets (1/255, 4/255).",
        "",
        f"| set | level | classifier | attack | {' | '.join(names)} |",
        "|---|---:|---|---|" + "---:|" * len(names),
    ]
    for (data, level, classifier, attack), found in sorted(rows.items()):
        cells = " | ".join(found.get(name, "–") for name in names)
        lines.append(f"| {data} | {level} | {classifier} | {attack} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=(*STAGES, "table"))
    parser.add_argument("--model", type=Path, help="folder of the base CLIP")
    parser.add_argument("--data", type=Path, help="folder with cifar100/, cifar10/, …")
    parser.add_argument("--work", type=Path, default=ROOT / "outputs/auto_attack_photos")
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--only", nargs="*", help="names of the cells to run")
    args = parser.parse_args()
    if args.stage == "table":
        (RESULTS / "auto_attack_photos.md").write_text(table() + "\n")
        print(table())
        return
    if args.model is None or args.data is None:
        parser.error(f"the stage {args.stage} needs --model and --data")
    cells = STAGES[args.stage](args)
    target = RESULTS / f"auto_attack_photos_{args.stage}"
    run_cells(cells, args.work / args.stage, target, CONFIG, args.only)


if __name__ == "__main__":
    main()
