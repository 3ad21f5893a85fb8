"""Depth in HierRobust: what orders the levels of a class tree, and what that costs; one process a cell.

    python benchmarks/hier_depth.py STAGE --model path/to/clip --data path/to/data

Cells run and resume as in ``hier_cifar100.py``; numbers go to ``benchmarks/results/hier_depth_STAGE/``.
``hier_depth_table.py`` makes the tables.

Stages:
    search      learning rate of each method, on held-back training images
    acceptance  shipped defaults against ``lambda_gap=0``, three seeds, on two trees
    paired      those of WordNet's tree once more by the score they were trained with, on 900 test images
    paired_cosine
                the same images by cosine, which those models were not trained with
    rates       the same comparison on WordNet's tree without the hinges on medians, the scales at the rate of
                the weights (3,000 images) and at three times that (900)
    demo        the same comparison for the demo, six seeds, on 1,080 images
    ablation    as published (distances) and by cosine, on two trees and a forest; with sums over edges and a
                scale a level, and as it was before: means, one scale, ball norms at their edge; two seeds
    text        the text perturbation on tangents, on pooled states, or none
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cells import RESULTS, ROOT, chosen_rate, run_cells

CONFIG = ROOT / "examples/configs/cifar100_small.yaml"
DEMO = ROOT / "examples/configs/demo.yaml"
SHORT = {"max_train_samples": 5000, "num_train_epochs": 1, "eval_num_steps": 20}
HELD_BACK = SHORT | {
    "train_split": "train[:40000]",
    "eval_split": "train[40000:41000]",
    "eval_eps": "4/255",
    "eval_num_steps": 10,
    "eval_samples": 400,
    "eval_attack": "pgd-ce",
}
TREES = ("cifar100", "cifar100-wordnet", "cifar100-forest")
FORMER = {
    "edge_reduction": "mean",
    "level_gap": False,
    "level_scales": False,
    "gap_norm": "ball",
    "tangent_norm": None,
    "kappa_scale": 1.0,
}
"""What was shipped before depth was measured."""
COSINE = {"score": "cosine", "pooling": "none", "lambda_vic": 0.0, "lambda_gap": 0.0}
METHODS = {
    "tecoa": {"objective": "tecoa"},
    "hier": {"objective": "hier_robust"},
    "former": {"objective": "hier_robust", "objective_args": FORMER},
    "cosine": {"objective": "hier_robust", "objective_args": COSINE},
}


EDGES = {"objective": "hier_robust", "objective_args": {"level_gap": False}}
"""HierRobust before medians had hinges; `ablation` and `text` are of it, with scales at the weights' rate."""
WITHOUT = {"objective": "hier_robust", "objective_args": {"lambda_gap": 0.0}}
OWN = {"eval_classifiers": "cosine,hyperbolic,rollup-hyperbolic"}
SCORE = {"eval_classifiers": "hyperbolic"}


def search(args: argparse.Namespace) -> dict[str, dict]:
    return {
        f"{name}-{rate:.2g}": method
        | HELD_BACK
        | {"learning_rate": rate, "eval_classifiers": "cosine,hyperbolic" if name == "hier" else "cosine"}
        for name, method in METHODS.items()
        if name != "former"
        for rate in (2.5e-4, 5e-4, 1e-3, 2e-3)
    }


def _rate(name: str) -> dict:
    """The former defaults train at the rate of the present ones."""
    return {"learning_rate": chosen_rate(RESULTS / "hier_depth_search", "hier" if name == "former" else name)}


def _slow_scales(name: str) -> dict:
    """The scales at the rate of the weights, too."""
    rate = _rate(name)
    return rate if name in ("tecoa", "cosine") else rate | {"scale_learning_rate": rate["learning_rate"]}


def acceptance(args: argparse.Namespace) -> dict[str, dict]:
    test = SHORT | OWN | {"eval_eps": "4/255", "eval_samples": 300}
    return {
        f"{name}-{tree}-seed{seed}": method | test | _rate("hier") | {"tree": tree, "seed": seed}
        for tree in TREES[:2]
        for seed in (0, 1, 2)
        for name, method in {"hier": METHODS["hier"], "no-gap": WITHOUT}.items()
    }


def paired(args: argparse.Namespace) -> dict[str, dict]:
    test = SCORE | {"command": "evaluate", "eval_eps": "4/255", "eval_samples": 900, "eval_num_steps": 20}
    return {
        name: test
        | {
            "model_name_or_path": args.work / "acceptance" / name,
            "tree": options["tree"],
            "seed": options["seed"],
        }
        for name, options in reversed(acceptance(args).items())
        if options["tree"] == "cifar100-wordnet"
    }


def paired_cosine(args: argparse.Namespace) -> dict[str, dict]:
    return {name: options | {"eval_classifiers": "cosine"} for name, options in paired(args).items()}


def rates(args: argparse.Namespace) -> dict[str, dict]:
    test = SHORT | SCORE | {"eval_eps": "4/255", "tree": "cifar100-wordnet"}
    rate = _rate("hier")
    return {
        f"{name}-x{factor}-seed{seed}": method
        | test
        | rate
        | {"scale_learning_rate": factor * rate["learning_rate"], "eval_samples": images, "seed": seed}
        for factor, images in ((1, 3000), (3, 900))
        for seed in (0, 1, 2)
        for name, method in {"edges": EDGES, "no-gap": WITHOUT}.items()
    }


def demo(args: argparse.Namespace) -> dict[str, dict]:
    test = SCORE | {"eval_eps": "4/255", "eval_samples": 1080, "resume_from_checkpoint": False}
    return {
        f"{name}-glyphs-seed{seed}": method | test | {"seed": seed}
        for seed in range(6)
        for name, method in {"hier": METHODS["hier"], "no-gap": WITHOUT}.items()
    }


def ablation(args: argparse.Namespace) -> dict[str, dict]:
    unseen = {name: args.data / name / "test.parquet" for name in ("cifar10", "tinyimagenet", "caltech101")}
    test = SHORT | {
        "eval_eps": "4/255",
        "eval_samples": 300,
        "zero_shot": ",".join(f"{name}={path}" for name, path in unseen.items()),
    }
    found = {}
    for seed in (0, 1):
        for name, method in (METHODS | {"hier": EDGES}).items():
            for tree in TREES if name != "tecoa" else TREES[:1]:
                own = "" if name in ("tecoa", "cosine") else ",hyperbolic,rollup-hyperbolic"
                found[f"{name}-{tree}-seed{seed}"] = (
                    method
                    | test
                    | _slow_scales(name)
                    | {"tree": tree, "seed": seed, "eval_classifiers": "cosine,rollup" + own}
                )
    return found


def text(args: argparse.Namespace) -> dict[str, dict]:
    test = SHORT | {"eval_eps": "4/255", "eval_samples": 300, "eval_classifiers": "cosine,hyperbolic"}
    return {
        f"{name}-seed{seed}": EDGES | test | _slow_scales("hier") | {"seed": seed, "attack_args": args}
        for seed in (0, 1)
        for name, args in {
            "tangent": {},
            "pooled": {"text_perturbation": "pooled"},
            "pooled-large": {"text_perturbation": "pooled", "text_eps": 0.02},
            "none": {"text_eps": 0},
        }.items()
    }


STAGES = {
    stage.__name__: stage
    for stage in (search, acceptance, paired, paired_cosine, rates, demo, ablation, text)
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--model", type=Path, required=True, help="folder of the base CLIP")
    parser.add_argument("--data", type=Path, required=True, help="folder with cifar100/ and the unseen sets")
    parser.add_argument("--work", type=Path, default=ROOT / "outputs/hier_depth", help="where runs are kept")
    parser.add_argument("--only", nargs="*", help="names of the cells to run")
    parser.add_argument("--missing", action="store_true", help="run the cells that have no results yet")
    args = parser.parse_args()
    files = {
        "model_name_or_path": args.model,
        "train_file": args.data / "cifar100/train.parquet",
        "eval_file": args.data / "cifar100/test.parquet",
    }
    # Held-back images are rows of the training file; the training rows end before them.
    held_back = {"eval_file": files["train_file"]}
    cells = STAGES[args.stage](args)
    if args.stage != "demo":
        cells = {
            name: files | (held_back if "eval_split" in options else {}) | options
            for name, options in cells.items()
        }
    target = RESULTS / f"hier_depth_{args.stage}"
    if args.missing:
        args.only = [name for name in args.only or cells if not (target / f"{name}.json").exists()]
    config = DEMO if args.stage == "demo" else CONFIG
    run_cells(cells, args.work / args.stage, target, config, args.only)


if __name__ == "__main__":
    main()
