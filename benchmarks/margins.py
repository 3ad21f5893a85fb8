"""Theorem 1 of HierRobust on a trained model: the margins it has beside those its norms allow.

    python benchmarks/margins.py --model runs/hier --data cifar100/test.parquet --tree cifar100

A level's nodes lie at norms eta of the ball. With all norms eta, no hyperbolic classifier of temperature
kappa has a larger log-margin than ``kappa d(p, -p)``, and no inner-product one a larger one than
``2 kappa eta^2``; K equiangular prototypes reach the third bound. Beside them: the median margin of the test
images, and how far, in hyperbolic distance, an embedding of that margin may move before its prediction can
change.
"""

from __future__ import annotations

import argparse

import torch
from torch.utils.data import DataLoader, Subset
from transformers import AutoProcessor

from hf_hierrobust.data import (
    PixelCollator,
    as_images,
    class_set_of,
    load_class_set,
    load_images,
    stratified_rows,
)
from hf_hierrobust.geometry import (
    classification_margin,
    euclidean_margin,
    hyperbolic_margin,
    robust_radius,
    simplex_margins,
)
from hf_hierrobust.hierarchy import load_forest, node_names
from hf_hierrobust.modeling import PixelPipeline, encode_prompts, load_robust_model
from hf_hierrobust.naming import level_name


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="checkpoint with a calibrated hyperbolic head")
    parser.add_argument("--data", required=True, help="labelled test images, as of load_images")
    parser.add_argument("--tree", required=True, help="class tree, as of load_forest")
    parser.add_argument("--class_set", help="by default the data's own names")
    parser.add_argument("--template", default="This is a photo of a {}.")
    parser.add_argument("--samples", type=int, default=1000)
    args = parser.parse_args()

    model, processor = load_robust_model(args.model).eval(), AutoProcessor.from_pretrained(args.model)
    if not model.hier_head.calibrated:
        parser.error(f"--model {args.model} has no calibrated hyperbolic head: train hier_robust")
    data = load_images(args.data, split="test")
    class_set = load_class_set(args.class_set) if args.class_set else class_set_of(data)
    (tree, *_) = load_forest(args.tree, class_set.class_names)
    tangent, labels = image_tangents(model, processor, as_images(data, class_set), args.samples)
    head, kappa = model.hier_head, float(model.hier_head.kappa)
    curvature, images = head.constants["curvature"], head.lift(tangent)
    print("| level | nodes | eta | hyperbolic | inner product | equiangular | measured | radius |")
    print("|---|---|---|---|---|---|---|---|")
    for level, names in enumerate(node_names(class_set.class_names, tree)):
        prompts = [args.template.replace("{}", name) for name in names]
        states = encode_prompts(model, processor.tokenizer, prompts)
        with torch.no_grad():
            texts = head.lift(head.text_tangent(model.project_text(states)))
            margin = classification_margin(head.logits(images, texts), tree.ancestors(level)[labels]).median()
            eta = (head.ball_norm(texts) * head.radius).double().median()
        row = (
            eta,
            hyperbolic_margin(eta, curvature, kappa),
            euclidean_margin(eta, kappa),
            simplex_margins(eta, len(names), curvature, kappa).hyperbolic,
            margin,
            robust_radius(margin, kappa),
        )
        print(
            f"| {level_name(level)} | {len(names)} | {' | '.join(f'{float(value):.3g}' for value in row)} |"
        )


@torch.no_grad()
def image_tangents(model, processor, images, samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tangent vectors (N, D) of clean test images, stratified by class, and their class indices (N,)."""
    rows, _ = stratified_rows(images.labels, min(samples, len(images)))
    loader = DataLoader(
        Subset(images, rows), 250, collate_fn=PixelCollator(processor.image_processor, "native")
    )
    pipeline, tangents, labels = PixelPipeline(processor.image_processor), [], []
    for batch in loader:
        tangents.append(model.hier_head.image_tangent(model.encode_image(pipeline(batch["pixels"]))))
        labels.append(batch["labels"])
    return torch.cat(tangents), torch.cat(labels)


if __name__ == "__main__":
    main()
