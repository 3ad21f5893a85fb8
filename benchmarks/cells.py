"""Resumable benchmark cells, each a run of the package's own command line in its own process and folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from hf_hierrobust.cli.options import options_of
from hf_hierrobust.files import read_yaml

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results"
TAKEN = options_of("evaluate")


def run_cell(folder: Path, options: dict, config: Path) -> None:
    """Train and evaluate, or only evaluate, with these options; the log lies beside the folder.

    Args:
        options: flags of ``hf-hierrobust train``; ``command: evaluate`` only measures.
        config: YAML file below the options.
    """
    options = dict(options)
    command = options.pop("command", "train")
    options = {
        "output_dir": folder,
        "eval_base": False,
        "figures": False,
        "disable_tqdm": True,
        "resume_from_checkpoint": True,
    } | options
    above = ["--config", str(config)]
    if command == "evaluate":  # which refuses what only a training uses, and a budget beside eval_eps
        options = {key: value for key, value in (read_yaml(config) | options).items() if key in TAKEN}
        options = {key: value for key, value in options.items() if key != "eps" or "eval_eps" not in options}
        above = []
    flags = above + [part for key, value in options.items() for part in (f"--{key}", _text(value))]
    script = "from hf_hierrobust.cli.main import main; main()"
    with folder.with_name(f"{folder.name}.log").open("a") as log:
        subprocess.run(
            [sys.executable, "-c", script, command, *flags],
            check=True,
            stdout=log,
            stderr=log,
        )


def _text(value) -> str:
    return json.dumps(value) if isinstance(value, dict) else str(value)


def revision() -> str:
    """Git's hash of the package's code as committed, marked where the working tree differs from it."""

    def git(*command: str) -> str:
        return subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "hf_hierrobust")
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
    # Of a resumed run only the last part was timed.
    timed = state.exists() and not (folder / "resumed").exists()
    history = json.loads(state.read_text())["log_history"] if timed else []
    runtime = next((entry for entry in reversed(history) if "train_runtime" in entry), {})
    paths = (
        "zero_shot",
        "command",
        "model_name_or_path",
        "train_file",
        "eval_file",
        "text_attack_args",
        "eval_text_attack_args",
    )
    return {
        "options": {k: v for k, v in options.items() if k not in paths},
        "revision": json.loads((folder / "cell.json").read_text())["revision"],
        "train_seconds": runtime.get("train_runtime"),
        "steps_per_second": runtime.get("train_steps_per_second"),
        "records": records,
    }


def run_cells(cells: dict[str, dict], work: Path, target: Path, config: Path, only: list[str] | None) -> None:
    """Run the cells that have no results yet and write the numbers of each into a file of its own.

    Args:
        cells: name -> options.
        target: folder of the results, ``NAME.json`` each, so that stages may run side by side.
        only: names to run; None runs all.
    """
    work.mkdir(parents=True, exist_ok=True)
    target.mkdir(parents=True, exist_ok=True)
    for name, options in cells.items():
        if only is not None and name not in only:
            continue
        folder = work / name
        prepare(folder, options)
        if not (folder / "results.json").exists():
            print(f"{target.name}/{name}", flush=True)
            if any(folder.glob("checkpoint-*")):
                (folder / "resumed").touch()
            run_cell(folder, options, config)
        found = collect(folder, options)
        (target / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
        for record in found["records"]:
            print(
                f"  {record['dataset']:14} level {record['level']} {record['classifier']:18} "
                f"{record['attack']['eps_text']:6} clean {100 * record['clean_accuracy']:5.1f} "
                f"robust {100 * record['robust_accuracy']:5.1f}",
                flush=True,
            )


def load_cells(folder: Path) -> dict[str, dict]:
    """Collected numbers of a stage, by the name of the cell."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def chosen_rate(search: Path, method: str) -> float:
    """Learning rate of a method with the best robust leaf accuracy of a search, over its classifiers."""
    found = {}
    for name, cell in load_cells(search).items():
        if name.rsplit("-", 1)[0] == method:
            leaf = [r["robust_accuracy"] for r in cell["records"] if r["level"] == 0]
            found[max(leaf)] = cell["options"]["learning_rate"]
    if not found:
        raise KeyError(f"{search.name} has no cells of {method!r}: run the stage 'search' first")
    return found[max(found)]
