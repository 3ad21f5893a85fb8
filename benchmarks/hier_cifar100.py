"""HierRobust against TeCoA on CIFAR-100: learning-rate search, comparison, ablations; one process a cell.

    python benchmarks/hier_cifar100.py STAGE --model ../shared/models/clip-small --data ../shared/data

Every cell is a run of ``examples/run_hier.py`` in its own folder. A cell that has results of the same options
and revision is not run again, one that was interrupted resumes from its last checkpoint, and the collected
numbers of a stage go to ``benchmarks/results/hier_cifar100_STAGE.json``.

Stages:
    search        learning rate of each method, on held-back training images
    ablation      what each part of HierRobust does, on held-back training images
    passes        TeCoA and multi-level cosine (one tree, three) by the number of passes, likewise
    main          base, TeCoA, HierRobust (as published; by cosine with one tree and with a forest), two
                  seeds, on the test images
    perturbation  leaf only, level by level, universal
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "examples/configs/cifar100_small.yaml"
# The base has seen these images, the fine-tuned models have not: good for choosing, not for reporting.
HELD_BACK = {
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
METHODS = {"tecoa": TECOA, "hier": HIER, "hier-cosine": COSINE}
ABLATIONS = {
    "paper": {},
    "cosine": COSINE["objective_args"],
    "cosine-leaf-first": COSINE["objective_args"] | {"level_weights": [1.0, 0.2]},
    "cosine-no-hnsa": COSINE["objective_args"] | {"hnsa": "none"},
    "cosine-leaf-only": COSINE["objective_args"] | {"level_weights": [1.0, 0.0], "hnsa": "none"},
    "cosine-frozen-projection": COSINE["objective_args"] | {"train_text_projection": False},
    "small-tangent": {"tangent_norm": 0.45},
    "half-kappa": {"kappa_scale": 0.5},
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


def chosen_rate(method: str) -> float:
    """Learning rate with the best robust leaf accuracy of the search stage, over the method's classifiers."""
    path = ROOT / "benchmarks/results/hier_cifar100_search.json"
    found = {}
    for name, cell in json.loads(path.read_text()).items():
        if name.rsplit("-", 1)[0] == method:
            leaf = [r["robust_accuracy"] for r in cell["records"] if r["level"] == 0]
            found[max(leaf)] = cell["options"]["learning_rate"]
    return found[max(found)]


def cells(stage: str, data: Path) -> dict[str, dict]:
    """Name -> options of each run of a stage."""
    if stage == "search":
        short = HELD_BACK | {"num_train_epochs": 1, "eval_classifiers": "cosine,hyperbolic"}
        return {
            f"{name}-{rate:.2g}": method | short | {"learning_rate": rate}
            for name, method in METHODS.items()
            for rate in (2.5e-4, 5e-4, 1e-3, 2e-3)
        }
    if stage == "ablation":
        short = HELD_BACK | {"num_train_epochs": 1, "eval_classifiers": "cosine,hyperbolic,rollup"}
        found = {name: HIER | short | {"objective_args": args} for name, args in ABLATIONS.items()}
        return {"tecoa": TECOA | short} | found
    if stage == "passes":
        short = HELD_BACK | {"learning_rate": 1e-3, "eval_classifiers": "cosine,rollup"}
        methods = {"tecoa": TECOA, "cosine": COSINE, "cosine-forest": COSINE | {"tree": "cifar100-forest"}}
        return {
            f"{name}-{passes}": method | short | {"num_train_epochs": passes}
            for passes in (3, 8)
            for name, method in methods.items()
        }
    test = {
        "eval_eps": "1/255,4/255",
        "eval_samples": 2000,
        "zero_shot": f"cifar10={data}/cifar10/test.parquet,tinyimagenet={data}/tinyimagenet/test.parquet",
    }
    if stage == "main":
        found = {"base": test | {"command": "evaluate", "eval_classifiers": "cosine,rollup"}}
        for seed in (0, 1):
            for name in ("tecoa", "hier", "hier-forest", "hier-cosine", "hier-cosine-forest"):
                base = name.removesuffix("-forest")
                options = METHODS[base] | test | {"seed": seed, "learning_rate": chosen_rate(base)}
                if name.endswith("forest"):
                    options["tree"] = "cifar100-forest"
                # A head that cosine training never touched is no classifier.
                own = "hyperbolic,rollup-hyperbolic" if base == "hier" else ""
                options["eval_classifiers"] = ",".join(filter(None, ["cosine,rollup", own]))
                found[f"{name}-seed{seed}"] = options
        return found
    short = {"eval_eps": "4/255", "eval_samples": 1000, "num_train_epochs": 1}
    return {
        name: COSINE | short | {"attack": name, "eval_classifiers": "cosine,rollup"}
        for name in ("leaf", "per_level", "universal")
    }


def run_cell(name: str, options: dict, args: argparse.Namespace, folder: Path) -> None:
    """One training and evaluation in a process of its own."""
    options = dict(options)
    command = options.pop("command", "train")
    train = args.data / "cifar100/train.parquet"
    # Held-back images are rows of the training file; the training rows end before them.
    evaluation = train if "eval_split" in options else args.data / "cifar100/test.parquet"
    options = {
        "model_name_or_path": args.model,
        "train_file": train,
        "eval_file": evaluation,
        "output_dir": folder,
        "eval_base": False,
        "figures": False,
        "disable_tqdm": True,
        "resume_from_checkpoint": True,
    } | options
    flags = [part for key, value in options.items() for part in (f"--{key}", _text(value))]
    script = [str(ROOT / "examples/run_hier.py")]
    if command == "evaluate":
        script = ["-c", "from hf_hierrobust.cli.evaluate import main; main()"]
    with (folder.parent / f"{name}.log").open("a") as log:
        subprocess.run(
            [sys.executable, *script, "--config", str(CONFIG), *flags], check=True, stdout=log, stderr=log
        )


def _text(value) -> str:
    return json.dumps(value) if isinstance(value, dict) else str(value)


def revision() -> str:
    """Git's hash of the package's code as committed, marked where the working tree differs from it."""

    def git(*command: str) -> str:
        return subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "hf_hierrobust", "examples")
    return (git("rev-parse", "--short=12", "HEAD:hf_hierrobust") or "unknown") + (
        "-changed" if changed else ""
    )


def prepare(folder: Path, options: dict) -> None:
    """Start a cell anew unless what its folder holds comes from the same options and revision."""
    stamp = json.dumps({"options": {k: str(v) for k, v in options.items()}, "revision": revision()}, indent=1)
    note = folder / "cell.json"
    if folder.exists() and not (note.exists() and note.read_text() == stamp):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(stamp)


def collect(folder: Path, options: dict) -> dict:
    """Numbers of one finished cell."""
    records = json.loads((folder / "results.json").read_text())["records"]
    state = folder / "trainer_state.json"
    history = json.loads(state.read_text())["log_history"] if state.exists() else []
    runtime = next((entry for entry in reversed(history) if "train_runtime" in entry), {})
    return {
        "options": {k: v for k, v in options.items() if k not in ("zero_shot", "command")},
        "revision": json.loads((folder / "cell.json").read_text())["revision"],
        "train_seconds": runtime.get("train_runtime"),
        "steps_per_second": runtime.get("train_steps_per_second"),
        "records": records,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=("search", "ablation", "passes", "main", "perturbation"))
    parser.add_argument("--model", type=Path, required=True, help="folder of the base CLIP")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with cifar100/, cifar10/, tinyimagenet/"
    )
    parser.add_argument(
        "--work", type=Path, default=ROOT / "outputs/hier_cifar100", help="where runs are kept"
    )
    parser.add_argument("--only", nargs="*", help="names of the cells to run")
    args = parser.parse_args()
    work = args.work / args.stage
    work.mkdir(parents=True, exist_ok=True)
    target = ROOT / f"benchmarks/results/hier_cifar100_{args.stage}.json"
    target.parent.mkdir(exist_ok=True)
    found = json.loads(target.read_text()) if target.exists() else {}
    for name, options in cells(args.stage, args.data).items():
        if args.only is not None and name not in args.only:
            continue
        folder = work / name
        prepare(folder, options)
        if not (folder / "results.json").exists():
            print(f"{args.stage}/{name}", flush=True)
            run_cell(name, options, args, folder)
        found[name] = collect(folder, options)
        target.write_text(json.dumps(found, indent=1) + "\n")
        for record in found[name]["records"]:
            print(
                f"  {record['dataset']:14} level {record['level']} {record['classifier']:18} "
                f"{record['attack']['eps_text']:6} clean {100 * record['clean_accuracy']:5.1f} "
                f"robust {100 * record['robust_accuracy']:5.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
