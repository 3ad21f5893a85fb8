"""Markdown tables and one figure of ``results/compare_methods_main``."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from cells import load_cells

from hf_hierrobust.evaluation.metrics import wilson_interval

BUDGETS = ("1/255", "4/255")
PROMPTS = "superclass prompts"
ZERO_SHOT = {"cifar10": "CIFAR-10", "tinyimagenet": "Tiny-ImageNet", "caltech101": "Caltech-101"}


TITLES = {
    "base": "undefended",
    "plain": "plain adversarial",
    "tecoa": "TeCoA",
    "fare": "FARE",
    "pmg_aft": "PMG-AFT",
    "tga_zsr": "TGA-ZSR",
    "mmcoa": "MMCoA",
    "agft": "AGFT",
    "agft-uncalibrated": "AGFT, `gamma=1, scale=1`",
    "hier": "HierRobust by cosine, 1 tree",
    "hier-forest": "HierRobust by cosine, 3 trees",
    "hier_agft": "`hier_agft` (ours)",
    "hier_mmcoa": "`hier_mmcoa` (ours)",
}


class Results:
    """Records of all cells, by method, averaged over seeds.

    Args:
        folder: collected cells.
        order: names of the methods, in the order of the rows; others come last.
    """

    def __init__(self, folder: Path, order: Sequence[str] = ()):
        found = defaultdict(list)
        for name, cell in load_cells(folder).items():
            found[name.rsplit("-seed", 1)[0]].append(cell)
        self.cells = {name: found[name] for name in dict.fromkeys((*order, *sorted(found))) if name in found}

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


def columns(results: Results, method: str) -> dict[str, dict[str, list[dict]]]:
    """Records of a method on each of the five tasks and by superclass prompts alone, by budget."""
    tasks = {"CIFAR-100": ("cifar100", 0, "cosine"), PROMPTS: ("cifar100", 1, "cosine")}
    tasks["superclasses, best"] = ("cifar100", 1, best_superclass(results, method))
    tasks |= {title: (name, 0, "cosine") for name, title in ZERO_SHOT.items()}
    return {
        title: {eps: results.records(method, *where, "pgd", eps) for eps in BUDGETS}
        for title, where in tasks.items()
    }


def mean(found: dict[str, dict[str, list[dict]]], tasks: Sequence[str], eps: str, key: str) -> str:
    """Percent, mean over tasks."""
    values = [value(found[task][eps], key) for task in tasks]
    return f"{100 * sum(values) / len(values):.1f}"


def summary_table(results: Results, steps: dict[str, dict]) -> str:
    """What matters most of both tables below, without intervals; robust under both losses."""
    kinds = {"clean": (BUDGETS[0], "clean_accuracy")} | {eps: (eps, "robust_accuracy") for eps in BUDGETS}
    groups = {
        "leaf": ["CIFAR-100"],
        PROMPTS: [PROMPTS],
        "best superclasses": ["superclasses, best"],
        "zero-shot": list(ZERO_SHOT.values()),
        "all six tasks": ["CIFAR-100", PROMPTS, "superclasses, best", *ZERO_SHOT.values()],
    }
    head = ["method", "seeds"]
    shown = {group: [BUDGETS[-1]] if group == PROMPTS else list(kinds) for group in groups}
    for group, names in shown.items():
        head += [f"{group}: {names[0]}", *names[1:]]
    head += ["prompts attacked", f"and pixels, {BUDGETS[-1]}", "step, in TeCoA's"]
    rows = []
    for method in results.methods:
        found, row = columns(results, method), [title_of(method), str(len(results.cells[method]))]
        for group, tasks in groups.items():
            row += [mean(found, tasks, *kinds[name]) for name in shown[group]]
        for attack, eps in (("text", None), ("joint", BUDGETS[-1])):
            attacked = value(results.records(method, "cifar100", 0, "cosine", attack, eps))
            row.append(f"{100 * attacked:.1f}")
        rows.append([*row, f"{steps[method]['median']:.2f}" if method in steps else "–"])
    return markdown(head, rows)


def title_of(method: str) -> str:
    """What a reader calls a cell of compare_methods.py."""
    base = method.removesuffix("-lora")
    return TITLES.get(base, base) + (", LoRA" if base != method else "")


def readme_table(results: Results) -> str:
    """Five columns for the README: clean, and robust under both losses at the largest budget."""
    eps = BUDGETS[-1]
    head = ["method", "leaf, clean", f"leaf, {eps}", f"{PROMPTS}, {eps}", f"zero-shot, {eps}"]
    rows = []
    for method in results.methods:
        found = columns(results, method)
        row = [title_of(method), mean(found, ["CIFAR-100"], BUDGETS[0], "clean_accuracy")]
        for tasks in (["CIFAR-100"], [PROMPTS], list(ZERO_SHOT.values())):
            row.append(mean(found, tasks, eps, "robust_accuracy"))
        rows.append(row)
    return markdown(head, rows)


def leaf_table(results: Results, steps: dict[str, dict]) -> str:
    """CIFAR-100, one row a method; ``steps`` holds each one's time of a step over TeCoA's."""
    head = ["method", "seeds", "leaf, clean"]
    for eps in BUDGETS:
        head += [f"PGD-20 {eps}", f"and CW {eps}"]
    head += [f"{PROMPTS}, clean", *BUDGETS, "best superclasses, clean", *BUDGETS, "by"]
    head += ["prompts attacked", f"and pixels {BUDGETS[-1]}", "time of a step"]
    rows = []
    for method in results.methods:
        found = columns(results, method)
        leaf = found["CIFAR-100"]
        row = [method, str(len(results.cells[method])), entry(leaf[BUDGETS[0]], "clean_accuracy")]
        for eps in BUDGETS:
            row += [entry(leaf[eps], "after_ce"), entry(leaf[eps])]
        for task in (found[PROMPTS], found["superclasses, best"]):
            row += [entry(task[BUDGETS[0]], "clean_accuracy"), *(entry(task[eps]) for eps in BUDGETS)]
        row.append(best_superclass(results, method))
        row.append(entry(results.records(method, "cifar100", 0, "cosine", "text", None)))
        row.append(entry(results.records(method, "cifar100", 0, "cosine", "joint", BUDGETS[-1])))
        row.append(f"{steps[method]['median']:.2f}" if method in steps else "–")
        rows.append(row)
    return markdown(head, rows)


def zero_shot_table(results: Results) -> str:
    """The three sets that no method trained on."""
    head = ["method"]
    for title in ZERO_SHOT.values():
        head += [f"{title}, clean", *BUDGETS]
    rows = []
    for method in results.methods:
        row, found = [method], columns(results, method)
        for title in ZERO_SHOT.values():
            row.append(entry(found[title][BUDGETS[0]], "clean_accuracy"))
            row += [entry(found[title][eps]) for eps in BUDGETS]
        rows.append(row)
    return markdown(head, rows)


def markdown(head: list[str], rows: list[list[str]]) -> str:
    ruler = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ruler, *rows))


def draw(results: Results, path: Path) -> None:
    """A panel for each task, a line for each method: clean, and robust at both budgets with intervals."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    methods = results.methods
    found = {method: columns(results, method) for method in methods}
    tasks = [*found[methods[0]]]
    figure, axes = plt.subplots(
        1, len(tasks), figsize=(16, 0.38 * len(methods) + 1.9), sharey=True, layout="constrained"
    )
    kinds = {
        "clean": (BUDGETS[0], "clean_accuracy", "tab:gray"),
        **{
            f"robust at {eps}": (eps, "robust_accuracy", colour)
            for eps, colour in zip(BUDGETS, ("tab:orange", "tab:blue"))
        },
    }
    for ax, task in zip(axes, tasks):
        for label, (eps, key, colour) in kinds.items():
            for place, method in enumerate(methods):
                records = found[method][task][eps]
                mean, count = value(records, key), records[0]["num_samples"]
                low, high = wilson_interval(round(mean * count), count)
                spread = [[100 * (mean - low)], [100 * (high - mean)]]
                ax.errorbar(100 * mean, place, xerr=spread, fmt="o", ms=5, color=colour, lw=1.2)
            ax.plot([], [], "o", color=colour, label=label)
        ax.set(title=task, xlabel="accuracy (%)", xlim=(0, None))
        ax.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(methods)), [title_of(method).replace("`", "") for method in methods])
    axes[0].invert_yaxis()
    figure.suptitle("Worst case of PGD-20 and CW-PGD-20, 95 % intervals over 1,000 images a set")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(kinds))
    figure.savefig(path, dpi=150)
    plt.close(figure)


def write_table(source: Path, speed: Path, target: Path, order: Sequence[str]) -> None:
    """Write ``target.md`` and ``target.png``, and print the tables.

    Args:
        source, speed: results of compare_methods.py and of step_time.py.
        order: names of the methods, in the order of the rows.
    """
    results = Results(source, order)
    steps = json.loads(speed.read_text())["ratio"] if speed.exists() else {}
    tables = (
        readme_table(results),
        summary_table(results, steps),
        leaf_table(results, steps),
        zero_shot_table(results),
    )
    text = "\n\n".join(tables) + "\n"
    print(text)
    target.with_suffix(".md").write_text(text)
    draw(results, target.with_suffix(".png"))
