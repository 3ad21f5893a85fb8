"""Markdown table of ``results/hier_cifar100_main.json``.

    python benchmarks/hier_table.py            # prints the table, writes results/hier_cifar100_main.md

An entry is the mean over seeds; the interval is Wilson's 95 % one for that accuracy on the images of one
set (all seeds see the same images, so more seeds do not narrow it). The seeds' own values are in the JSON.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from hf_hierrobust.evaluation.metrics import wilson_interval

RESULTS = Path(__file__).parent / "results"
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


def load(path: Path) -> tuple[dict, list[str]]:
    """(method, column, eps) -> per-seed records; and the methods in order."""
    cells, order = defaultdict(list), []
    for name, cell in json.loads(path.read_text()).items():
        method = name.rsplit("-seed", 1)[0]
        if method not in order:
            order.append(method)
        for record in cell["records"]:
            column = (record["dataset"], record["level"], record["classifier"])
            cells[method, column, record["attack"]["eps_text"]].append(record)
    return cells, order


def entry(records: list[dict], kind: str, interval: bool = True) -> str:
    if not records:
        return "–"
    mean = sum(r[f"{kind}_accuracy"] for r in records) / len(records)
    count = records[0]["num_samples"]
    low, high = wilson_interval(round(mean * count), count)
    return f"{100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]" if interval else f"{100 * mean:.1f}"


def table(cells: dict, order: list[str], budgets: tuple[str, ...] = ("1/255", "4/255")) -> str:
    lines = ["| classifier | model | clean | " + " | ".join(f"PGD-20, {eps}" for eps in budgets) + " |"]
    lines.append("|---|---|---:|" + "---:|" * len(budgets))
    for column, title in COLUMNS.items():
        for method in order:
            records = [cells.get((method, column, eps), []) for eps in budgets]
            if any(records):
                robust = " | ".join(entry(r, "robust") for r in records)
                lines.append(f"| {title} | {method} | {entry(records[0], 'clean', False)} | {robust} |")
    return "\n".join(lines)


def main() -> None:
    cells, order = load(RESULTS / "hier_cifar100_main.json")
    text = table(cells, order)
    print(text)
    (RESULTS / "hier_cifar100_main.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
