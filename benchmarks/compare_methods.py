"""Every method on CIFAR-100 in one pipeline: the same search of the rate, training, images and attacks.

    python benchmarks/compare_methods.py search --model path/to/clip --mlm path/to/mlm --data path/to/data
    python benchmarks/compare_methods.py recipe …      # options of hier_agft, on the same held-back images
    python benchmarks/compare_methods.py anchor …      # the weight of its anchor, on test images unused below
    python benchmarks/compare_methods.py main …        # two seeds of every method at its chosen rate
    python benchmarks/compare_methods.py table         # results/compare_methods.md and .png

Each cell is a run of ``hf-hierrobust train`` in its own process and folder; one that has results of the same
options and revision is not run again. All methods train on the same 10,000 images for the same number of
passes with two attack steps at 4/255 (the hierarchical ones from Gaussian noise and with a small
perturbation of the prompts' embeddings, as HierRobust does, the others from uniform noise; MMCoA also attacks
the captions), and are measured on the same 1,000 test images of each set by PGD-20 on the cross-entropy, then
CW-PGD-20 (margin) on what stands, at 1/255 and 4/255; the class prompts are attacked by themselves and before
the pixels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cells import RESULTS, ROOT, chosen_rate, run_cells

CONFIG = ROOT / "examples/configs/baseline_cifar100_small.yaml"
COSINE = {"score": "cosine", "pooling": "none", "lambda_vic": 0.0, "lambda_gap": 0.0}
TREE, FOREST = {"tree": "cifar100"}, {"tree": "cifar100-forest"}
METHODS = {
    "plain": {"objective": "plain"},
    "tecoa": {"objective": "tecoa"},
    "fare": {"objective": "fare"},
    "pmg_aft": {"objective": "pmg_aft"},
    "tga_zsr": {"objective": "tga_zsr"},
    "mmcoa": {"objective": "mmcoa", "text_attack": "bert"},
    "agft": {"objective": "agft"},
    "agft-uncalibrated": {"objective": "agft", "objective_args": {"gamma": 1.0, "scale": 1.0}},
    "hier": {"objective": "hier_robust", "objective_args": COSINE} | TREE,
    "hier-forest": {"objective": "hier_robust", "objective_args": COSINE} | FOREST,
    "hier_agft": {"objective": "hier_agft"} | TREE,
    "hier_mmcoa": {"objective": "hier_mmcoa", "text_attack": "bert"} | TREE,
}
"""``agft`` has the paper's constants, ``agft-uncalibrated`` the argument defaults of its code. ``hier`` is
HierRobust by cosine, every image by itself: the better of its variants (hier_cifar100.py)."""
SEARCHED = {"tecoa": "tecoa", "hier": "hier-cosine", "hier-forest": "hier-cosine-forest"}
"""Methods whose rate hier_cifar100.py has searched in the same way, and their names there. The first two were
searched on the first 500 of the held-back images."""
LORA = {f"{name}-lora": METHODS[name] | {"lora_r": 8} for name in ("hier", "agft", "agft-uncalibrated")}
RATES = (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3)
LORA_RATES = (2e-3, 4e-3, 8e-3, 1.6e-2)
ATTACK = {"eps": "4/255", "num_steps": 2, "step_size": "4/255"}
SEEDS = (0, 1)
# The base has seen these images, the fine-tuned models have not: good for choosing, not for reporting.
HELD_BACK = {
    "train_split": "train[:40000]",
    "eval_split": "train[40000:41000]",
    "eval_eps": "4/255",
    "eval_num_steps": 10,
    "eval_classifiers": "cosine",
    "num_train_epochs": 1,
}


def search(args: argparse.Namespace) -> dict[str, dict]:
    """One pass of every other method on held-back training images.

    Run are 5e-4, 1e-3 and 2e-3, under LoRA 2e-3, 4e-3 and 8e-3, and the rate further out (``--only``) where
    its neighbour was the best.
    """
    return {
        f"{name}-{rate:.2g}": method | ATTACK | HELD_BACK | {"learning_rate": rate}
        for name, method in (METHODS | LORA).items()
        if name not in SEARCHED
        for rate in (LORA_RATES if name in LORA else RATES)
    }


def recipe(args: argparse.Namespace) -> dict[str, dict]:
    """One pass of our own method under other options than its defaults, at 1e-3 or 2e-3; others beside it.

    Zero-shot accuracy is measured on training images of Tiny-ImageNet, which the main table does not use.
    """
    found = {}
    for share in (0.3, 0.5, 0.8, 1.0):
        found[f"labels-{share}"] = {"label_weight": share, "gamma": 1.0, "scale": 1.0}
    found["agft-labels-0.8"] = {"label_weight": 0.8, "gamma": 0.4, "scale": 1.8}
    found["labels-0.5-leaf-first"] = found["labels-0.5"] | {"level_weights": [1.0, 0.3]}
    bare = {"embedding_weight": 0.0}  # the anchor is weighed as a member of its own below
    cells = {
        name: {"objective": "hier_agft", "objective_args": options | bare} for name, options in found.items()
    }
    for name, weight, share, rate in (
        ("0.001", 0.001, 0.5, 1e-3),
        ("0.003", 0.003, 0.5, 1e-3),
        ("0.003-labels-1.0", 0.003, 1.0, 1e-3),
        ("0.003-rate-0.002", 0.003, 0.5, 2e-3),
        ("0.01", 0.01, 0.5, 1e-3),
        ("0.01-rate-0.002", 0.01, 0.5, 2e-3),
    ):
        members = {"hier_agft": bare | {"label_weight": share}, "fare": {}}
        method = {"objective": "composite", "learning_rate": rate}
        cells[f"with-fare-{name}"] = method | {
            "objective_args": {"members": members, "weights": {"fare": weight}}
        }
    cells = {name: method | TREE for name, method in cells.items()}
    others = ("tecoa", "pmg_aft", "hier", "fare", "agft", "agft-uncalibrated")
    cells |= {name: METHODS[name] for name in others}
    zero_shot = {"zero_shot": f"tinyimagenet={args.data}/tinyimagenet/train.parquet"}
    # The same 1,000 held-back images, named so that the split exists in the smaller set too.
    common = ATTACK | HELD_BACK | {"eval_split": "train[80%:]"} | zero_shot
    return {name: {"learning_rate": 1e-3} | method | common for name, method in cells.items()}


def main_table(args: argparse.Namespace) -> dict[str, dict]:
    """The table's rows: base, every method with two seeds, LoRA with the first."""
    sets = {name: f"{args.data}/{name}/test.parquet" for name in ("cifar10", "tinyimagenet", "caltech101")}
    test = ATTACK | {
        "eval_eps": "1/255,4/255",
        "eval_classifiers": "cosine,rollup",
        "eval_text_attack": "bert",
        "eval_text_attack_args": {"model_name": str(args.mlm)},
        "zero_shot": ",".join(f"{name}={source}" for name, source in sets.items()),
        "tree": "cifar100",  # for the superclass columns; flat objectives ignore it
    }
    found = {"base": test | {"command": "evaluate"}}
    for seed in SEEDS:
        for name, method in (METHODS if seed else METHODS | LORA).items():
            if args.only and f"{name}-seed{seed}" not in args.only:
                continue  # its rate may not be known yet
            search = "hier_cifar100_search" if name in SEARCHED else "compare_methods_search"
            rate = chosen_rate(RESULTS / search, SEARCHED.get(name, name))
            found[f"{name}-seed{seed}"] = test | method | {"seed": seed, "learning_rate": rate}
    return found


def anchor(args: argparse.Namespace) -> dict[str, dict]:
    """The weight of hier_agft's anchor, over the main stage's passes.

    On test images that the main table does not use: the base has seen the held-back training images, where an
    anchor on the base looks better than it is. Run were 0, 1.5 and 3 at 1e-3, and 3 at 2e-3.
    """
    common = ATTACK | {
        "eval_file": args.data / "cifar100/test.parquet",
        "eval_split": "test[5000:6000]",
        "eval_eps": "1/255,4/255",
        "eval_num_steps": 10,
        "eval_classifiers": "cosine,rollup",
        "zero_shot": ",".join(f"{n}={args.data}/{n}/test.parquet" for n in ("cifar10", "tinyimagenet")),
    }
    return {
        f"anchor-{weight}-rate-{rate}": METHODS["hier_agft"]
        | common
        | {"objective_args": {"embedding_weight": weight}, "learning_rate": rate}
        for weight in (0.0, 1.5, 3.0)
        for rate in (1e-3, 2e-3)
    }


STAGES = {"search": search, "recipe": recipe, "anchor": anchor, "main": main_table}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=(*STAGES, "table"))
    parser.add_argument("--model", type=Path, help="folder of the base CLIP")
    parser.add_argument("--mlm", type=Path, help="folder of the masked language model")
    parser.add_argument(
        "--data", type=Path, help="folder with cifar100/, cifar10/, tinyimagenet/, caltech101/"
    )
    parser.add_argument("--passes", type=int, default=3, help="passes over the images in the main stage")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "outputs/compare_methods", help="where runs are kept"
    )
    parser.add_argument("--only", nargs="*", help="names of the cells to run")
    args = parser.parse_args()
    if args.stage == "table":
        from compare_table import write_table

        speed, target = RESULTS / "step_time.json", RESULTS / "compare_methods"
        write_table(RESULTS / "compare_methods_main", speed, target, ("base", *METHODS, *LORA))
        return
    missing = [name for name in ("model", "mlm", "data") if getattr(args, name) is None]
    if missing:
        parser.error(f"the stage {args.stage!r} needs --{', --'.join(missing)}")
    train = args.data / "cifar100/train.parquet"
    files = {"model_name_or_path": args.model, "train_file": train}
    cells = {}
    for name, options in STAGES[args.stage](args).items():
        if options.get("text_attack") == "bert":
            options = options | {"text_attack_args": {"model_name": str(args.mlm)}}
        # Held-back images are rows of the training file; the training rows end before them.
        source = train if "eval_split" in options else args.data / "cifar100/test.parquet"
        cells[name] = files | {"eval_file": source, "num_train_epochs": args.passes} | options
    target = RESULTS / f"compare_methods_{args.stage}"
    run_cells(cells, args.work / args.stage, target, CONFIG, args.only)


if __name__ == "__main__":
    main()
