"""Markdown tables and one figure of ``results/compare_methods_main.json``."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from hf_hierrobust.evaluation.metrics import wilson_interval

BUDGETS = ("1/255", "4/255")
ZERO_SHOT = {"cifar10": "CIFAR-10", "tinyimagenet": "Tiny-ImageNet", "caltech101": "Caltech-101"}


class Results:
    """Records of all cells, by method, averaged over seeds."""

    def __init__(self, path: Path):
        self.cells = defaultdict(list)
        for name, cell in json.loads(path.read_text()).items():
            self.cells[name.rsplit("-seed", 1)[0]].append(cell)

    @property
    def methods(self) -> list[str]:
        return list(self.cells)

    def records(self, method: str, dataset: str, level: int, classifier: str, attack: str, eps: str | None):
        """One record a seed; ``attack`` is ``pgd``, or ``text`` and ``joint`` for attacked prompts."""
        kinds = {"pgd": lambda n: n == "pgd", "joint": lambda n: "+" in n}
        kind = kinds.get(attack, lambda n: n != "pgd" and "+" not in n)
        return [
            record
            for cell in self.cells[method]
            for record in cell["records"]
            if (record["dataset"], record["level"], record["classifier"]) == (dataset, level, classifier)
            and kind(record["attack"]["name"])
            and eps in (None, record["attack"]["eps_text"])
        ]


def value(records: list[dict], key: str = "robust_accuracy") -> float | None:
    """Mean over seeds of an accuracy, or of the share that stands after the cross-entropy attack."""
    if not records:
        return None
    found = [r["checks"]["robust_after_ce"] if key == "after_ce" else r[key] for r in records]
    return sum(found) / len(found)


def entry(records: list[dict], key: str = "robust_accuracy") -> str:
    """Percent with the wider half of Wilson's 95 % interval on the images of one set."""
    mean = value(records, key)
    if mean is None:
        return "–"
    n = records[0]["num_samples"]
    low, high = wilson_interval(round(mean * n), n)
    return f"{100 * mean:.1f} ± {100 * max(mean - low, high - mean):.1f}"


def best_superclass(results: Results, method: str) -> str:
    """Classifier of the superclasses (OC-22) with the best robust accuracy at the largest budget."""
    names = {r["classifier"] for c in results.cells[method] for r in c["records"] if r["level"] == 1}
    return max(
        sorted(names),
        key=lambda name: value(results.records(method, "cifar100", 1, name, "pgd", BUDGETS[-1])) or 0,
    )


def leaf_table(results: Results, steps: dict[str, dict]) -> str:
    """CIFAR-100, one row a method; ``steps`` holds each one's time of a step over TeCoA's."""
    head = ["method", "seeds", "leaf clean"]
    for eps in BUDGETS:
        head += [f"PGD-20 {eps}", f"+ CW {eps}"]
    head += [
        "superclass clean",
        *(f"PGD-20 + CW {eps}" for eps in BUDGETS),
        "by",
        "text",
        "joint 4/255",
        "step",
    ]
    rows = []
    for method in results.methods:
        leaf = {eps: results.records(method, "cifar100", 0, "cosine", "pgd", eps) for eps in BUDGETS}
        row = [method, str(len(results.cells[method])), entry(leaf[BUDGETS[0]], "clean_accuracy")]
        for eps in BUDGETS:
            row += [entry(leaf[eps], "after_ce"), entry(leaf[eps])]
        by = best_superclass(results, method)
        above = {eps: results.records(method, "cifar100", 1, by, "pgd", eps) for eps in BUDGETS}
        row += [entry(above[BUDGETS[0]], "clean_accuracy"), *(entry(above[eps]) for eps in BUDGETS), by]
        row.append(entry(results.records(method, "cifar100", 0, "cosine", "text", None)))
        row.append(entry(results.records(method, "cifar100", 0, "cosine", "joint", BUDGETS[-1])))
        row.append(f"{steps[method]['median']:.2f}" if method in steps else "–")
        rows.append(row)
    return markdown(head, rows)


def zero_shot_table(results: Results) -> str:
    head = ["method"]
    for title in ZERO_SHOT.values():
        head += [f"{title} clean", *(f"{eps}" for eps in BUDGETS)]
    rows = []
    for method in results.methods:
        row = [method]
        for dataset in ZERO_SHOT:
            found = [results.records(method, dataset, 0, "cosine", "pgd", eps) for eps in BUDGETS]
            row += [entry(found[0], "clean_accuracy"), *(entry(records) for records in found)]
        rows.append(row)
    return markdown(head, rows)


def markdown(head: list[str], rows: list[list[str]]) -> str:
    ruler = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ruler, *rows))


def draw(results: Results, path: Path) -> None:
    """Leaf against superclass robustness at the largest budget, one point a method."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), constrained_layout=True)
    for ax, (title, of) in zip(
        axes,
        {
            "20 superclasses, best classifier": lambda m: results.records(
                m, "cifar100", 1, best_superclass(results, m), "pgd", BUDGETS[-1]
            ),
            "CIFAR-10, zero-shot": lambda m: results.records(m, "cifar10", 0, "cosine", "pgd", BUDGETS[-1]),
        }.items(),
    ):
        for method in results.methods:
            leaf = value(results.records(method, "cifar100", 0, "cosine", "pgd", BUDGETS[-1]))
            other = value(of(method))
            if leaf is None or other is None:
                continue
            ours = method.startswith("hier")
            ax.plot(100 * leaf, 100 * other, "o", color="tab:blue" if ours else "tab:gray", ms=7)
            ax.annotate(
                method, (100 * leaf, 100 * other), xytext=(5, 4), textcoords="offset points", fontsize=8
            )
        ax.set(xlabel="CIFAR-100 leaves, robust accuracy (%)", ylabel=f"{title}, robust accuracy (%)")
        ax.grid(alpha=0.3)
    figure.suptitle(f"Worst case of PGD-20 and CW-PGD-20 at {BUDGETS[-1]}")
    figure.savefig(path, dpi=150)


def write_table(source: Path, speed: Path, target: Path) -> None:
    """Write ``target.md`` and ``target.png``, and print the tables.

    Args:
        source, speed: results of compare_methods.py and of step_time.py.
    """
    results = Results(source)
    steps = json.loads(speed.read_text())["ratio"] if speed.exists() else {}
    text = leaf_table(results, steps) + "\n\n" + zero_shot_table(results) + "\n"
    print(text)
    target.with_suffix(".md").write_text(text)
    draw(results, target.with_suffix(".png"))
