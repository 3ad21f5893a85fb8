"""HierRobust against TeCoA on CIFAR-100: learning-rate search, comparison, ablations; one process a cell.

    python benchmarks/hier_cifar100.py STAGE --model path/to/clip --data path/to/data

Every cell is a run of ``hf-hierrobust train`` in its own folder. A cell that has results of the same options
and revision is not run again, one that was interrupted resumes from its last checkpoint, and the collected
numbers of a stage go to ``benchmarks/results/hier_cifar100_STAGE/``.

Stages:
    search        learning rate of each method, on held-back training images
    ablation      what each part of HierRobust does, on held-back training images
    passes        TeCoA and multi-level cosine (one tree, three) by the number of passes, likewise
    main          base, TeCoA, HierRobust (as published and by cosine, each with one tree and with a forest),
                  two seeds, on the test images
    stress        the main rows' first seed again, under the strongest attack here: fp32, two losses, restarts
    perturbation  leaf only, level by level, universal
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cells import RESULTS, ROOT, chosen_rate, run_cells

CONFIG = ROOT / "examples/configs/cifar100_small.yaml"
# The base has seen these images, the fine-tuned models have not: good for choosing, not for reporting.
HELD_BACK = {
    "train_split": "train[:40000]",
    "eval_split": "train[40000:41000]",
    "eval_eps": "4/255",
    "eval_num_steps": 10,
    "eval_samples": 1000,
}
TECOA = {"objective": "tecoa", "num_steps": 2}
HIER = {"objective": "hier_robust"}
COSINE = HIER | {
    "objective_args": {"score": "cosine", "pooling": "none", "lambda_vic": 0.0, "lambda_gap": 0.0}
}
"""Multi-level cosine: every image by itself at every level, scored by cosine; no distance, no norm terms."""
FOREST = {"tree": "cifar100-forest"}
METHODS = {
    "tecoa": TECOA,
    "hier": HIER,
    "hier-forest": HIER | FOREST,
    "hier-cosine": COSINE,
    "hier-cosine-forest": COSINE | FOREST,
}
ABLATIONS = {
    "paper": {},
    "cosine": COSINE["objective_args"],
    "cosine-leaf-first": COSINE["objective_args"] | {"level_weights": [1.0, 0.2]},
    "cosine-no-hnsa": COSINE["objective_args"] | {"hnsa": "none"},
    "cosine-leaf-only": {
        **{name: value for name, value in COSINE["objective_args"].items() if name != "pooling"},
        "level_weights": [1.0, 0.0],  # nothing is pooled
        "hnsa": "none",
    },
    "cosine-frozen-projection": COSINE["objective_args"] | {"train_text_projection": False},
    "small-tangent": {"tangent_norm": 0.45},
    "half-kappa": {"kappa_scale": 0.5},
    "quarter-kappa": {"kappa_scale": 0.25},
    "half-kappa-small-tangent": {"kappa_scale": 0.5, "tangent_norm": 0.45},
    "per-image": {"pooling": "none"},
    "no-gap": {"lambda_gap": 0.0},
    "strong-gap": {"lambda_gap": 30.0},
    "no-vic": {"lambda_vic": 0.0},
    "no-hnsa": {"hnsa": "none"},
    "frozen-projection": {"train_text_projection": False},
    "cosine-midpoints": COSINE["objective_args"] | {"pooling": "midpoint"},
    "cosine-leaf-first-frozen": COSINE["objective_args"]
    | {"level_weights": [1.0, 0.2], "train_text_projection": False},
    "small-tangent-per-image": {"tangent_norm": 0.45, "pooling": "none"},
    "small-tangent-strong-gap": {"tangent_norm": 0.45, "lambda_gap": 30.0},
}
"""Options that differ from the published method, ``paper``."""


def search(data: Path) -> dict[str, dict]:
    short = HELD_BACK | {"num_train_epochs": 1, "eval_classifiers": "cosine,hyperbolic"}
    return {
        f"{name}-{rate:.2g}": method | short | {"learning_rate": rate}
        for name, method in METHODS.items()
        for rate in (2.5e-4, 5e-4, 1e-3, 2e-3)
    }


def ablation(data: Path) -> dict[str, dict]:
    joined = "path,path-hyperbolic"
    short = HELD_BACK | {"num_train_epochs": 1, "eval_classifiers": f"cosine,hyperbolic,rollup,{joined}"}
    hier = {name: HIER | short | {"objective_args": args} for name, args in ABLATIONS.items()}
    # More images per class in the batch; a quarter of the steps, so twice the rate.
    large = {"per_device_train_batch_size": 512, "learning_rate": 1e-3}
    batch = {
        "tecoa-batch-512": TECOA | short | large,
        "paper-batch-512": HIER | short | large,
        "cosine-batch-512": COSINE | short | large,
    }
    return {"tecoa": TECOA | short} | hier | batch


def passes(data: Path) -> dict[str, dict]:
    short = HELD_BACK | {"learning_rate": 1e-3, "eval_classifiers": "cosine,rollup"}
    return {
        f"{name}-{count}": METHODS[name] | short | {"num_train_epochs": count}
        for count in (3, 8)
        for name in ("tecoa", "hier-cosine", "hier-cosine-forest")
    }


def main_table(data: Path) -> dict[str, dict]:
    test = {
        "eval_eps": "1/255,4/255",
        "eval_samples": 2000,
        "zero_shot": f"cifar10={data}/cifar10/test.parquet,tinyimagenet={data}/tinyimagenet/test.parquet",
    }
    found = {"base": test | {"command": "evaluate", "eval_classifiers": "cosine,rollup"}}
    for seed in (0, 1):
        for name, method in METHODS.items():
            rate = chosen_rate(RESULTS / "hier_cifar100_search", name)
            # A head that cosine training never touched is no classifier.
            own = ",hyperbolic,rollup-hyperbolic" if name in ("hier", "hier-forest") else ""
            found[f"{name}-seed{seed}"] = (
                method
                | test
                | {"seed": seed, "learning_rate": rate, "eval_classifiers": "cosine,rollup" + own}
            )
    return found


def stress(data: Path) -> dict[str, dict]:
    """The first 250 images of the main stage's first seed under two losses, five starts and fp32."""
    strong = {
        "eval_eps": "4/255",
        "eval_samples": 250,
        "eval_restarts": 5,
        "bf16_search": False,
        "seed": 0,
    }
    search = RESULTS / "hier_cifar100_search"
    return {
        name: method
        | strong
        | {
            "learning_rate": chosen_rate(search, name),
            "eval_classifiers": "cosine,hyperbolic" if name in ("hier", "hier-forest") else "cosine",
        }
        for name, method in METHODS.items()
    }


def perturbation(data: Path) -> dict[str, dict]:
    short = {"eval_eps": "4/255", "eval_samples": 1000, "num_train_epochs": 1}
    return {
        name: COSINE | short | {"attack": name, "eval_classifiers": "cosine,rollup"}
        for name in ("leaf", "per_level", "universal")
    }


STAGES = {
    "search": search,
    "ablation": ablation,
    "passes": passes,
    "main": main_table,
    "stress": stress,
    "perturbation": perturbation,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--model", type=Path, required=True, help="folder of the base CLIP")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with cifar100/, cifar10/, tinyimagenet/"
    )
    parser.add_argument(
        "--work", type=Path, default=ROOT / "outputs/hier_cifar100", help="where runs are kept"
    )
    parser.add_argument("--passes", type=int, default=3, help="passes over the images in the stage main")
    parser.add_argument("--only", nargs="*", help="names of the cells to run")
    args = parser.parse_args()
    files = {
        "model_name_or_path": args.model,
        "train_file": args.data / "cifar100/train.parquet",
        "eval_file": args.data / "cifar100/test.parquet",
    }
    # Held-back images are rows of the training file; the training rows end before them.
    held_back = {"eval_file": files["train_file"]}
    found = {
        name: files | (held_back if "eval_split" in options else {}) | options
        for name, options in STAGES[args.stage](args.data).items()
    }
    stage = args.stage
    if stage == "main" and args.passes != 3:
        stage = f"main_{args.passes}passes"
        found = {name: options | {"num_train_epochs": args.passes} for name, options in found.items()}
    run_cells(found, args.work / stage, RESULTS / f"hier_cifar100_{stage}", CONFIG, args.only)


if __name__ == "__main__":
    main()
