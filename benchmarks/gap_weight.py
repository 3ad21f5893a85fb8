"""Weight of the label gap beside HITA: gradient norms at the text projection.

    python benchmarks/gap_weight.py --model path/to/clip --data path/to/data

On one attacked batch of CIFAR-100, at the start and with one text scale for all levels, so that edges are
out of order: the norm of the gradient of the label gap (lambda_gap = 1, sum and mean over edges) over that of
HITA.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch
from cells import RESULTS
from datasets import load_dataset

from hf_hierrobust.objectives import HierRobust
from hf_hierrobust.training import RobustCLIPTrainer, RobustTrainingArguments


def ratios(model: Path, images, tree: str, batch: int) -> dict[str, float]:
    found = {}
    for reduction in ("sum", "mean"):
        with tempfile.TemporaryDirectory() as folder:
            args = RobustTrainingArguments(folder, tree=tree, eps="4/255", num_steps=2, bf16=False)
            objective = HierRobust(level_scales=False, edge_reduction=reduction)
            trainer = RobustCLIPTrainer(model, args, train_dataset=images, objective=objective)
        trainer.calibrate()
        inputs = trainer._prepare_inputs(
            trainer.data_collator([trainer.train_dataset[i] for i in range(batch)])
        )
        one = trainer.reader.read(inputs, trainer._starts)
        perturbations, targets = trainer.step.perturb(one, trainer._starts)
        views, targets, _ = trainer.step.views.training(trainer.model, one, perturbations, targets)
        terms = objective.loss(views, targets)
        weight = trainer.model.text_projection.weight
        norms = {
            name: float(torch.autograd.grad(term, weight, retain_graph=True)[0].norm())
            for name, term in terms.items()
            if name in ("hita", "label_gap")
        }
        found[reduction] = norms["label_gap"] / norms["hita"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=128)
    args = parser.parse_args()
    images = load_dataset(
        "parquet", data_files=str(args.data / "cifar100/train.parquet"), split="train[:1000]"
    )
    found = {tree: ratios(args.model, images, tree, args.batch) for tree in ("cifar100", "cifar100-wordnet")}
    print(json.dumps(found, indent=1))
    (RESULTS / "gap_weight.json").write_text(
        json.dumps({"batch": args.batch, "ratios": found}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
