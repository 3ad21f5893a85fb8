"""Markdown table of ``results/hier_cifar100_main``.

    python benchmarks/hier_table.py            # prints the table, writes results/hier_cifar100_main.md

An entry is the mean over seeds with Wilson's 95 % interval for that accuracy on the images of one set (all
seeds see the same images, so more seeds do not narrow it). The last column is the robust difference from
TeCoA by the same classifier, or by cosine where TeCoA has none: mean over images and seeds with its paired
95 % interval over the images.
"""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path

import torch
from cells import RESULTS, load_cells
from hier_cifar100 import METHODS

from hf_hierrobust.evaluation.flags import unpack_flags
from hf_hierrobust.evaluation.metrics import wilson_interval

COLUMNS = {
    ("cifar100", 0, "cosine"): "leaf, cosine",
    ("cifar100", 0, "hyperbolic"): "leaf, −κd",
    ("cifar100", 1, "cosine"): "superclass (a) prompts",
    ("cifar100", 1, "hyperbolic"): "superclass (b) −κd",
    ("cifar100", 1, "rollup"): "superclass (c) roll-up",
    ("cifar100", 1, "rollup-hyperbolic"): "superclass (c) roll-up of −κd",
    ("cifar10", 0, "cosine"): "CIFAR-10 zero-shot",
    ("tinyimagenet", 0, "cosine"): "Tiny-ImageNet",
}


def load(folder: Path) -> dict:
    """(method, column, eps) -> per-seed records."""
    cells = defaultdict(list)
    for name, cell in load_cells(folder).items():
        method = name.rsplit("-seed", 1)[0]
        for record in cell["records"]:
            column = (record["dataset"], record["level"], record["classifier"])
            cells[method, column, record["attack"]["eps_text"]].append(record)
    return cells


def entry(records: list[dict], kind: str, interval: bool = True) -> str:
    if not records:
        return "–"
    mean = sum(r[f"{kind}_accuracy"] for r in records) / len(records)
    count = records[0]["num_samples"]
    low, high = wilson_interval(round(mean * count), count)
    return f"{100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]" if interval else f"{100 * mean:.1f}"


def verdicts(records: list[dict], kind: str = "robust") -> torch.Tensor:
    """(N,) fraction of the seeds that are right on each image, clean or under attack."""
    flags = [unpack_flags(r["flags"][kind], r["num_samples"]) for r in records]
    return torch.stack(flags).double().mean(0)


def difference(records: list[dict], others: list[dict]) -> str:
    """Paired difference in points with its 95 % interval over images."""
    if not all(r.get("flags") for r in records) or len(records) != len(others):
        return "–"  # measured before records carried verdicts, or not the same seeds yet
    if records[0]["sample_ids"] != others[0]["sample_ids"]:
        raise ValueError("two cells saw other images: run the stage again")
    delta = verdicts(records) - verdicts(others)
    half = 1.96 * float(delta.std()) / math.sqrt(len(delta))
    return f"{100 * float(delta.mean()):+.1f} ± {100 * half:.1f}"


def table(cells: dict, order: list[str], budgets: tuple[str, ...] = ("1/255", "4/255")) -> str:
    lines = [
        "| classifier | model | seeds | clean | "
        + " | ".join(f"PGD-20, {eps}" for eps in budgets)
        + f" | − TeCoA, {budgets[-1]} |",
        "|---|---|---:|---:|" + "---:|" * (len(budgets) + 1),
    ]
    for column, title in COLUMNS.items():
        dataset, level, classifier = column
        for method in order:
            records = [cells.get((method, column, eps), []) for eps in budgets]
            if not any(records):
                continue
            robust = " | ".join(entry(r, "robust") for r in records)
            own = {"hyperbolic": "cosine", "rollup-hyperbolic": "rollup"}.get(classifier, classifier)
            tecoa = cells.get(("tecoa", (dataset, level, own), budgets[-1]), [])
            versus = "" if method in ("base", "tecoa") else difference(records[-1], tecoa)
            clean = entry(records[0], "clean", interval=False)
            lines.append(f"| {title} | {method} | {len(records[0])} | {clean} | {robust} | {versus} |")
    return "\n".join(lines)


def main() -> None:
    text = table(load(RESULTS / "hier_cifar100_main"), ["base", *METHODS])
    print(text)
    (RESULTS / "hier_cifar100_main.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
