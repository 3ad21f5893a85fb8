"""Markdown tables of ``results/hier_depth_STAGE``: acceptance, paired, rates, demo, ablation and text.

    python benchmarks/hier_depth_table.py --data path/to/data     # prints them, writes results/hier_depth.md

Differences are paired over images and averaged over seeds, with their 95 % interval over images. The test
labels of ``data`` give the means over the classes of the deep tree, whose upper ones are of unequal size.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

from cells import RESULTS, load_cells
from depth import summary
from hier_depth import METHODS
from hier_table import difference, entry, verdicts
from torch import Tensor

from hf_hierrobust.data import as_images, load_class_set, load_images, stratified_rows
from hf_hierrobust.hierarchy import load_forest

HOME = "cifar100-test"
UNSEEN = ("cifar10", "tinyimagenet", "caltech101")


def by_name(stage: str) -> dict[str, dict[tuple, list[dict]]]:
    """Name of the run -> (data set, level, classifier) -> records, one a seed."""
    found: dict = defaultdict(lambda: defaultdict(list))
    for name, cell in load_cells(RESULTS / f"hier_depth_{stage}").items():
        for record in cell["records"]:
            key = record["dataset"], record["level"], record["classifier"]
            found[name.rsplit("-seed", 1)[0]][key].append(record)
    return found


def by_run(stage: str) -> dict[tuple[str, str], dict[tuple, list[dict]]]:
    """(method, tree) -> records as in `by_name`."""
    found: dict = defaultdict(lambda: defaultdict(list))
    for run, records in by_name(stage).items():
        method = next(m for m in (*METHODS, "no-gap") if run.startswith(f"{m}-"))
        found[method, run.removeprefix(f"{method}-")] |= records
    return found


def both(records: list[dict]) -> str:
    """Clean and robust accuracy, means over the seeds."""
    if not records:
        return "–"
    return f"{entry(records, 'clean', interval=False)} / {entry(records, 'robust', interval=False)}"


def depths(records: dict[tuple, list[dict]]) -> list[dict]:
    """`depth.summary` of each seed; empty where no record tells depth."""
    levels = sorted(
        (level, found) for (data, level, classifier), found in records.items() if found[0].get("depth")
    )
    seeds = range(len(levels[0][1])) if levels else ()
    return [summary([found[seed]["depth"] for _, found in levels]) for seed in seeds]


def acceptance() -> str:
    """Depth of every seed, then robust accuracy beside the same recipe without the gap."""
    runs = by_run("acceptance") | by_run("demo")
    lines = [
        "| tree | seed | edges in order | … without the gap | median tangent norms, leaves first | "
        "images beyond their leaf |",
        "|---|---:|---:|---:|---|---:|",
    ]
    trees = list(dict.fromkeys(tree for _, tree in runs))
    for tree in trees:
        shown, without = depths(runs["hier", tree]), depths(runs["no-gap", tree])
        for seed, (one, other) in enumerate(zip(shown, without)):
            medians = ", ".join(f"{value:.3f}" for value in one["medians"])
            cells = [
                tree,
                seed,
                f"{one['edges_in_order']} of {one['edges']}",
                other["edges_in_order"],
                medians,
            ]
            lines.append(f"| {' | '.join(map(str, cells))} | {one['image_depth']:+.3f} |")
    for stage in ("paired", "paired_cosine"):  # where there are more images, those
        for run, records in by_run(stage).items():
            runs[run] |= records
    lines += ["", "| tree | level | classifier | images | robust | − without the gap |"]
    lines += ["|---|---:|---|---:|---:|---:|"]
    for tree in trees:
        for key, records in sorted(runs["hier", tree].items()):
            _, level, classifier = key
            delta = difference(records, runs["no-gap", tree][key])
            count = records[0]["num_samples"]
            lines.append(
                f"| {tree} | {level} | {classifier} | {count:,} | {entry(records, 'robust')} | {delta} |"
            )
    return "\n".join(lines)


def rates() -> str:
    """What the gap costs without hinges on medians, by the rate of the scales."""
    runs = by_name("rates")
    lines = [
        "| scales at the weights' rate times | images | edges in order | smallest step of medians | "
        "level 0: − without the gap | level 1 | level 2 | level 3 |",
        "|---:|---:|---|---|" + "---:|" * 4,
    ]
    for factor in (1, 3):
        shown, without = runs[f"edges-x{factor}"], runs[f"no-gap-x{factor}"]
        found = depths(shown)
        order = f"{', '.join(str(one['edges_in_order']) for one in found)} of {found[0]['edges']}"
        steps = ", ".join(f"{one['smallest_step']:.4f}" for one in found)
        cells = [difference(shown[key], without[key]) for key in sorted(shown)]
        count = next(iter(shown.values()))[0]["num_samples"]
        lines.append(f"| {factor} | {count:,} | {order} | {steps} | {' | '.join(cells)} |")
    return "\n".join(lines)


def unequal(data: Path, tree: str = "cifar100-wordnet") -> str:
    """Of the ablation on the deep tree: clean and robust accuracy, plain and as means over the classes."""
    runs, classes = by_run("ablation"), load_class_set("cifar100")
    images = as_images(load_images(data / "cifar100/test.parquet", split="test"), classes)
    forest = load_forest(tree, classes.class_names)
    lines = [
        "| level | classifier | largest class | HierRobust, −κd: all images | … classes alike | "
        "as before: all | … alike | by cosine: all | … alike |",
        "|---|---|---:|" + "---:|" * 6,
    ]
    for level in range(forest[0].num_levels):
        for classifier in ("cosine", "hyperbolic", "rollup", "rollup-hyperbolic"):
            cells = []
            for method in ("hier", "former", "cosine"):
                records = runs[method, tree].get((HOME, level, classifier))
                if not records:
                    cells += ["–", "–"]
                    continue
                rows, _ = stratified_rows(images.labels, records[0]["num_samples"])
                nodes = forest[0].ancestors(level)[[images.labels[row] for row in rows]]
                largest = float(nodes.bincount().max()) / len(nodes)
                cells += [both(records), alike(records, nodes)]
            if set(cells) != {"–"}:
                count = len(forest[0].levels[level])
                lines.append(f"| {level} ({count}) | {classifier} | {largest:.0%} | {' | '.join(cells)} |")
    return "\n".join(lines)


def alike(records: list[dict], nodes: Tensor) -> str:
    """Clean and robust accuracy as means over the classes (N,) of the images."""
    found = []
    for kind in ("clean", "robust"):
        flags = verdicts(records, kind)
        means = [flags[nodes == node].mean() for node in nodes.unique()]
        found.append(f"{100 * float(sum(means)) / len(means):.1f}")
    return " / ".join(found)


def text_perturbation() -> str:
    """The text perturbation on tangents and on pooled states."""
    runs = by_name("text")
    columns = [(0, "cosine"), (0, "hyperbolic"), (1, "cosine"), (1, "hyperbolic")]
    lines = [
        "| perturbation of the text | edges in order | leaf, cosine | leaf, −κd | "
        "superclass prompts, cosine | … −κd |",
        "|---|---:|" + "---:|" * len(columns),
    ]
    for name in ("tangent", "pooled", "pooled-large", "none"):
        records = runs[name]
        found = depths(records)
        order = f"{' and '.join(str(one['edges_in_order']) for one in found)} of {found[0]['edges']}"
        cells = [both(records[HOME, *key]) for key in columns]
        lines.append(f"| {name} | {order} | {' | '.join(cells)} |")
    return "\n".join(lines)


def ablation() -> str:
    runs = by_run("ablation")
    titles = {"tecoa": "TeCoA", "hier": "HierRobust, −κd", "former": "… as before", "cosine": "by cosine"}
    lines = [
        "| | tree | edges in order | leaf, cosine | leaf, −κd | superclass prompts, cosine | … −κd | "
        f"roll-up | {' | '.join(UNSEEN)} |",
        "|---|---|---:|" + "---:|" * (5 + len(UNSEEN)),
    ]
    for (method, tree), records in sorted(runs.items(), key=lambda item: list(METHODS).index(item[0][0])):

        def cell(level: int, classifier: str, data: str = HOME, found=records) -> str:
            return both(found.get((data, level, classifier), []))

        order = " and ".join(f"{one['edges_in_order']}" for one in depths(records))
        count = {one["edges"] for one in depths(records)}
        order = f"{order} of {count.pop()}" if order else "–"
        cells = [cell(0, "cosine"), cell(0, "hyperbolic"), cell(1, "cosine"), cell(1, "hyperbolic")]
        cells += [cell(1, "rollup"), *(cell(0, "cosine", data) for data in UNSEEN)]
        lines.append(f"| {titles[method]} | {tree} | {order} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with cifar100/test.parquet")
    data = parser.parse_args().data
    text = "\n\n".join([acceptance(), rates(), ablation(), unequal(data), text_perturbation()])
    print(text)
    (RESULTS / "hier_depth.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
