"""AutoAttack on real photos: base, TeCoA, FARE, HierRobust (published, by cosine) and hier_agft.

    python benchmarks/auto_attack_photos.py train --model path/to/clip --data path/to/data
    python benchmarks/auto_attack_photos.py standard …    # AutoAttack at every level, 4/255 and 1/255
    python benchmarks/auto_attack_photos.py pgd …         # PGD-20 on the images of ``standard``
    python benchmarks/auto_attack_photos.py zero_shot …   # APGD-CE and targeted APGD on the unseen sets
    python benchmarks/auto_attack_photos.py transfer …    # crafted at one level, judged at the others, 4/255
    python benchmarks/auto_attack_photos.py table         # results/auto_attack_photos.md

Each cell is a process of the command line in its own folder. Models train once, on 10,000 photos at the
rate that ``hier_depth.py``, ``hier_cifar100.py`` and ``compare_methods.py`` found; a killed evaluation goes
on from its own state. A robust image costs AutoAttack 13,000 forwards, so ``standard`` takes the test images
in parts of 100: the first part of every model, then the second; the table pools the parts it finds.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

from cells import RESULTS, ROOT, chosen_rate, load_cells, run_cells
from hier_depth import COSINE

from hf_hierrobust.evaluation import RobustnessRecord
from hf_hierrobust.evaluation.metrics import wilson_interval
from hf_hierrobust.naming import level_name
from hf_hierrobust.reports.transfer import transfer_matrices

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
DISTANCE = "hier-distance"
"""HierRobust once more, by the score it was trained with."""
PART = 100
"""Images of one part of ``standard``, one a class, from its own fifth of the test file."""


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


def _models(args: argparse.Namespace) -> dict[str, Path]:
    return {"base": args.model} | {name: args.work / "train" / name for name in METHODS}


def standard(args: argparse.Namespace) -> dict[str, dict]:
    models = _models(args)
    models[DISTANCE] = models["hier"]
    shared = TREE | {
        "command": "evaluate",
        "eval_file": args.data / "cifar100/test.parquet",
        "eval_attack": "autoattack",
        "eval_samples": PART,
        "checks": True,
    }
    return {
        f"{name}-{eps.replace('/', '_')}-part{part}": shared
        | {
            "model_name_or_path": model,
            "eval_split": f"test[{2000 * part}:{2000 * (part + 1)}]",
            "eval_eps": eps,
            "eval_classifiers": "hyperbolic,rollup-hyperbolic" if name == DISTANCE else "cosine,rollup",
        }
        for part in range(-(-args.samples // PART))
        for eps in ("4/255", "1/255")
        for name, model in models.items()
    }


def pgd(args: argparse.Namespace) -> dict[str, dict]:
    """What the tables of other benchmarks have: PGD-20 on cross-entropy, then on the margin."""
    weaker = {"eval_attack": "pgd", "eval_num_steps": 20, "checks": False}
    return {name: options | weaker for name, options in standard(args).items()}


def zero_shot(args: argparse.Namespace) -> dict[str, dict]:
    first, *others = SETS
    shared = {
        "command": "evaluate",
        "eval_file": args.data / first / "test.parquet",
        "eval_name": first,
        "class_set": first,
        "zero_shot": ",".join(f"{name}={args.data}/{name}/test.parquet" for name in others),
        "eval_attack": "apgd-ce+t",
        "eval_classifiers": "cosine",
        "eval_samples": args.samples,
    }
    return {
        f"{name}-{eps.replace('/', '_')}": shared | {"model_name_or_path": model, "eval_eps": eps}
        for eps in ("4/255", "1/255")
        for name, model in _models(args).items()
    }


def transfer(args: argparse.Namespace) -> dict[str, dict]:
    shared = TREE | {
        "command": "evaluate",
        "eval_file": args.data / "cifar100/test.parquet",
        "eval_attack": "pgd",
        "transfer": True,
        "eval_eps": "4/255",
        "eval_samples": args.samples,
    }
    return {
        name: shared
        | {
            "model_name_or_path": model,
            "eval_classifiers": "cosine,rollup" + (",hyperbolic,rollup-hyperbolic" if name == "hier" else ""),
        }
        for name, model in _models(args).items()
    }


STAGES = {"train": train, "standard": standard, "pgd": pgd, "zero_shot": zero_shot, "transfer": transfer}


STEPS = ("apgd", "apgd-t", "fab-t", "square")
"""AutoAttack's attacks in their order, as records call them."""
TITLES = {"cosine": "prompts", "rollup": "roll-up", "hyperbolic": "prompts", "rollup-hyperbolic": "roll-up"}


def pooled(shares: list[float], counts: list[int], interval: bool = False) -> str:
    """Percentage over all images, from the share and the number of images of each part."""
    right, total = sum(round(s * n) for s, n in zip(shares, counts)), sum(counts)
    low, high = wilson_interval(right, total)
    return f"{100 * right / total:.1f}" + (f" [{100 * low:.1f}, {100 * high:.1f}]" if interval else "")


def _same_images(record: dict, cell: dict | None) -> float | None:
    """Robust accuracy of the same weights, images and classifier in another cell, if there is one."""
    same = ("level", "classifier", "model_hash", "sample_ids")
    for other in cell["records"] if cell else ():
        if all(other[name] == record[name] for name in same):
            return other["robust_accuracy"]
    return None


def standard_table() -> list[str]:
    """What stands after each of AutoAttack's attacks, a row a model, level and budget, over the parts."""
    rows: dict[tuple, list[dict]] = defaultdict(list)
    weaker = load_cells(RESULTS / "auto_attack_photos_pgd")
    for name, cell in load_cells(RESULTS / "auto_attack_photos_standard").items():
        model, eps, _ = name.rsplit("-", 2)
        for record in cell["records"]:
            key = eps.replace("_", "/"), record["level"], TITLES[record["classifier"]], model
            rows[key].append(record | {"pgd": _same_images(record, weaker.get(name))})
    order = ["base", *METHODS, DISTANCE]
    lines = [
        "| eps | level | classifier | model | images | clean | PGD-20 | APGD-CE | + APGD-T | + FAB-T | "
        "+ Square: AutoAttack |",
        "|---|---:|---|---|---:|---:|---:|" + "---:|" * len(STEPS),
    ]
    for (eps, level, title, model), found in sorted(
        rows.items(), key=lambda row: (row[0][0] != "4/255", *row[0][1:3], order.index(row[0][3]))
    ):
        if len({record["model_hash"] for record in found}) > 1:
            raise ValueError(f"the parts of {model} are of different weights: run all with one training")
        counts = [record["num_samples"] for record in found]
        steps = [[record["checks"][f"robust_after_{step}"] for record in found] for step in STEPS]
        pgd = [record["pgd"] for record in found]
        cells = [
            pooled([record["clean_accuracy"] for record in found], counts),
            "–" if None in pgd else pooled(pgd, counts),
            *(pooled(shares, counts) for shares in steps[:-1]),
            pooled([record["robust_accuracy"] for record in found], counts, interval=True),
        ]
        lines.append(f"| {eps} | {level} | {title} | {model} | {sum(counts)} | {' | '.join(cells)} |")
    return lines


def zero_shot_table() -> list[str]:
    """Clean accuracy and what stands after APGD-CE and targeted APGD, a row a data set and budget."""
    rows: dict[tuple, dict[str, dict]] = defaultdict(dict)
    for name, cell in load_cells(RESULTS / "auto_attack_photos_zero_shot").items():
        model, eps = name.rsplit("-", 1)
        for record in cell["records"]:
            rows[eps.replace("_", "/"), record["dataset"]][model] = record
    order = ["base", *METHODS]
    lines = [f"| eps | set | images | {' | '.join(order)} |", "|---|---|---:|" + "---:|" * len(order)]
    for (eps, data), found in sorted(rows.items()):
        cells = [
            f"{100 * found[m]['clean_accuracy']:.1f} / {100 * found[m]['robust_accuracy']:.1f}"
            if m in found
            else "–"
            for m in order
        ]
        count = next(iter(found.values()))["num_samples"]
        lines.append(f"| {eps} | {data} | {count} | {' | '.join(cells)} |")
    return lines


def transfer_table() -> list[str]:
    """Transfer rates between the levels of CIFAR-100's tree, a row a model and classifier."""
    cells = load_cells(RESULTS / "auto_attack_photos_transfer")
    entries = [(crafted, judged) for crafted in (0, 1) for judged in (0, 1)]
    title = " | ".join(f"{level_name(crafted)} to {level_name(judged)}" for crafted, judged in entries)
    lines = [f"| model | classifier | images | {title} |", "|---|---|---:|" + "---:|" * len(entries)]
    for model in [name for name in ("base", *METHODS) if name in cells]:
        records = [RobustnessRecord.from_dict(entry) for entry in cells[model]["records"]]
        for classifier, rates in transfer_matrices(records).items():
            shown = " | ".join(f"{100 * rates[entry]:.1f}" for entry in entries)
            lines.append(f"| {model} | {classifier} | {records[0].num_samples} | {shown} |")
    return lines


def table() -> str:
    return "\n".join([*standard_table(), "", *zero_shot_table(), "", *transfer_table()])


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
