"""Whether the levels of a deep tree stay in order in training: random tree, random weights, random images.

    python benchmarks/deep_tree.py --bf16   # ViT-B/32 size, 1,000 leaves, 5 levels above, 200 steps
    python benchmarks/deep_tree.py --size small --steps 200 --options '{"train_text_projection": false}'

No image says anything about its label, so the text side has to order itself. Printed are the edges whose
parent lies nearer the centre than its child and the median tangent norm of each level, before calibration,
after it and after the steps. ``hier_overhead.py`` measures what a step costs.
"""

from __future__ import annotations

import json
import tempfile
import time

import torch
from hier_overhead import build, random_batch, sized_parser, step

from hf_hierrobust.geometry import edge_order, image_depth, level_medians, smallest_step
from hf_hierrobust.objectives import HierRobust
from hf_hierrobust.training import RobustCLIPTrainer
from hf_hierrobust.training.optimizer import SCALE_RATE, group_scales


@torch.no_grad()
def depth(trainer: RobustCLIPTrainer, batch: dict) -> dict:
    """Order of the edges and medians of the levels; images beside their leaves' texts."""
    views, objective, head = trainer.step.views, trainer.objective, trainer.model.hier_head
    texts = (
        head.text_tangent(trainer.model.project_text(views.text.states), views.text.levels).norm(dim=1).cpu()
    )
    tree, rows = objective.forest.trees[0], objective.nodes.rows[0]
    norms, edges = [texts[r] for r in rows], [tree.edges(level) for level in range(tree.depth)]
    orders = edge_order(norms, edges, objective.gap_margin)
    medians = level_medians(norms, edges)
    features = trainer.model.encode_image(views.pipeline(batch["pixels"]))
    images = head.image_tangent(features).norm(dim=1).cpu()
    return {
        "edges": sum(o.edges for o in orders),
        "in_order": sum(o.in_order for o in orders),
        "by_margin": sum(o.by_margin for o in orders),
        "medians": [round(value, 4) for value in medians],
        "smallest_step": round(smallest_step(medians), 4),
        "images_beyond_leaf": round(image_depth(images - texts[batch["labels"].cpu()]).median, 4),
    }


def main() -> None:
    parser = sized_parser(__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--learning_rate", type=float, default=1e-4)
    parser.add_argument("--options", type=json.loads, default={}, help="of HierRobust, as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        trainer = build(HierRobust(**args.options), args, directory)
        for group in trainer.optimizer.param_groups:
            group["lr"] = args.learning_rate
        group_scales(trainer.optimizer, trainer.model.hier_head, SCALE_RATE * args.learning_rate)
        probe = random_batch(args, trainer.args.device)
        found = {"start": depth(trainer, probe)}
        begun = time.perf_counter()
        for number in range(args.steps):
            step(trainer, random_batch(args, trainer.args.device))
            if (number + 1) % 25 == 0:
                print(number + 1, depth(trainer, probe), f"{time.perf_counter() - begun:.0f} s", flush=True)
        found["end"] = depth(trainer, probe)
    result = {
        "setting": {k: v for k, v in vars(args).items() if k != "output"}
        | {"device": str(trainer.args.device), "cpu": torch.backends.cpu.get_cpu_capability()},
        "torch": torch.__version__,
        **found,
    }
    print(json.dumps(result, indent=1))
    if args.output:
        args.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
