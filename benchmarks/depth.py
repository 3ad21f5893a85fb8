"""Whether trained models' balls encode depth: edges in order, medians by level, images and leaves.

    python benchmarks/depth.py runs/hier runs/hier-wordnet                  # as the runs measured it
    python benchmarks/depth.py runs/hier --data cifar100/test.parquet       # anew, on these images

A run is the output directory of ``hf-hierrobust train`` with a tree. Anew means from its checkpoint, for
every tree that lies beside it. Three things are asked: at least 95 % of a tree's edges have the parent nearer
the centre than its child; medians of neighbouring levels are apart by the training's margin; in the median
images are not nearer the centre than their own leaf's text.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from transformers import AutoProcessor

from hf_hierrobust.data import class_set_of, load_class_set, load_images
from hf_hierrobust.evaluation import EvaluationSet, load_records
from hf_hierrobust.evaluation.depth import clean_depth
from hf_hierrobust.geometry import smallest_step
from hf_hierrobust.hierarchy import LabelTree
from hf_hierrobust.modeling import load_robust_model
from hf_hierrobust.reports.depth_table import depth_records

IN_ORDER = 0.95
"""Fraction of the edges that has to be in order."""


def summary(levels: Sequence[dict]) -> dict:
    """What the entries ``depth`` of a tree's levels, leaves first, come to; and what of the above holds."""
    leaf, below_top = levels[0], levels[:-1]
    edges, in_order = (sum(level[name] for level in below_top) for name in ("edges", "edges_in_order"))
    medians, margin = [level["tangent_norm"] for level in levels], leaf.get("gap_margin", 0.0)
    step = smallest_step(medians)
    return {
        "nodes": [level["nodes"] for level in levels],
        "edges": edges,
        "edges_in_order": in_order,
        "edges_by_margin": sum(level.get("edges_by_margin", level["edges_in_order"]) for level in below_top),
        "gap_margin": margin,
        "medians": medians,
        "ball_medians": [level["ball_norm"] for level in levels],
        "smallest_step": step,
        "image_depth": leaf["image_depth"],
        "images_not_nearer": leaf["images_not_nearer"],
        "clean_margin": [level.get("clean_margin") for level in levels],
        "attacked_margin": [level.get("attacked_margin") for level in levels],
        "bound": [level["bound"] for level in levels],
        "accepted": {
            "edges": in_order >= IN_ORDER * edges,
            "levels": step >= margin,
            "images": leaf["image_depth"] >= 0,
        },
    }


def as_measured(run: Path) -> dict[str, dict]:
    """Summary of the tree that a run measured, from its ``results.json``.

    Raises:
        ValueError: no record there tells depth.
    """
    chosen = depth_records(load_records(run / "results.json"))
    if not chosen:
        raise ValueError(f"{run}: no record tells depth; give --data to measure the checkpoint")
    return {chosen[0].tree: summary([record.depth for record in chosen])}


def measured_anew(run: Path, data: EvaluationSet) -> dict[str, dict]:
    """Summary of every tree that lies beside a run's checkpoint, on the clean images of a set."""
    model, processor = load_robust_model(run).eval(), AutoProcessor.from_pretrained(run)
    template = (getattr(model.config, "hier_robust", None) or {}).get("template")
    found = {}
    for path in sorted(run.glob("*.tree.json")):
        tree = LabelTree.from_json(path).align(data.class_set.class_names)
        found[tree.name] = summary(clean_depth(model, processor, replace(data, tree=tree), template))
    if not found:
        raise ValueError(f"{run} holds no tree: train with --tree")
    return found


def line(run: str, tree: str, facts: dict) -> str:
    """One row of the printed table."""
    medians = ", ".join(f"{value:.3f}" for value in facts["medians"])
    missed = [name for name, kept in facts["accepted"].items() if not kept]
    return (
        f"| {run} | {tree} | {' → '.join(map(str, facts['nodes']))} | {facts['edges_in_order']} of "
        f"{facts['edges']} | {facts['edges_by_margin']} | {medians} | {facts['smallest_step']:+.3f} | "
        f"{facts['image_depth']:+.3f} | {100 * facts['images_not_nearer']:.0f} % | "
        f"{'yes' if not missed else 'no: ' + ', '.join(missed)} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="output directories of hf-hierrobust train")
    parser.add_argument(
        "--data", help="labelled test images, as of load_images; by default what runs measured"
    )
    parser.add_argument("--class_set", help="by default the data's own names")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--out", type=Path, help="JSON file for all facts")
    args = parser.parse_args()

    data = None
    if args.data:
        images = load_images(args.data, split="test")
        class_set = load_class_set(args.class_set) if args.class_set else class_set_of(images)
        count = min(args.samples, len(images))
        data = EvaluationSet(name=args.data, dataset=images, class_set=class_set, num_samples=count)
    columns = "run, tree, nodes, edges in order, by the margin, medians √r‖v‖, least step, images beyond leaf"
    columns = [*columns.split(", "), "not nearer", "as asked"]
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    found = {}
    for run in args.runs:
        found[run.name] = as_measured(run) if data is None else measured_anew(run, data)
        for tree, facts in found[run.name].items():
            print(line(run.name, tree, facts), flush=True)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
