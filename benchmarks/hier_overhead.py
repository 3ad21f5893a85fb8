"""What the hierarchical loss adds to a TeCoA training step: interleaved ratio, random weights.

    python benchmarks/hier_overhead.py                     # ViT-B/32 size on the CPU
    python benchmarks/hier_overhead.py --batch 128 --bf16  # takes an accelerator where there is one

One step is the whole of `RobustCLIPTrainer`'s: the same number of PGD steps, then forward, backward and
optimiser. TeCoA and HierRobust alternate, so that a drift of the machine's speed hits both; the reported
ratio is the median over rounds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path

import torch
from timing import compare, interleave
from transformers import CLIPConfig

from hf_hierrobust.data import ClassSet
from hf_hierrobust.demo.tiny import build_processor, build_tokenizer
from hf_hierrobust.hierarchy import Forest, LabelTree
from hf_hierrobust.modeling import RobustCLIPModel
from hf_hierrobust.modeling.kernels import fast_kernels
from hf_hierrobust.objectives import HierRobust, Objective, TeCoA
from hf_hierrobust.training import RobustCLIPTrainer, RobustTrainingArguments

SIZES = {
    "b32": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
    "small": {
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
    },
}


def random_tree(num_classes: int, depth: int) -> LabelTree:
    """A tree with ``depth`` levels above the leaves, each about 2.5 times smaller than the one below."""
    sizes = [num_classes]
    for _ in range(depth):
        sizes.append(max(2, round(sizes[-1] / 2.5)))
    paths = {}
    for leaf in range(num_classes):
        node, path = leaf, []
        for level in range(1, depth + 1):
            node = node * sizes[level] // sizes[level - 1]
            path.append(f"group {level} {node}")
        paths[f"class {leaf}"] = path
    return LabelTree.from_paths(paths, name="random")


def build(objective: Objective, args: argparse.Namespace, directory: str, **training) -> RobustCLIPTrainer:
    """A trainer with random weights; the text trunk is small because it runs once, before the clock.

    Args:
        args: the options of this file's command line that size the model, the classes and the attack.
        training: further training arguments.
    """
    torch.manual_seed(0)
    tree = random_tree(args.classes, args.depth)
    tokenizer = build_tokenizer(["this is a photo of a class group"])
    vision = SIZES[args.size] | {"image_size": args.image_size, "patch_size": args.patch_size}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 512,
        "intermediate_size": 512,
        "num_hidden_layers": 1,
        "num_attention_heads": 8,
        "max_position_embeddings": 16,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model = RobustCLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=512))
    arguments = RobustTrainingArguments(
        output_dir=f"{directory}/{objective.name}",
        eps="1/255",
        num_steps=args.num_steps,
        bf16=args.bf16,
        disable_tqdm=True,
        save_strategy="no",
        attack_args={"random_start": "gaussian"},
        **training,
    )
    trainer = RobustCLIPTrainer(
        model,
        arguments,
        processing_class=build_processor(args.image_size, tokenizer),
        class_set=ClassSet.from_names([f"class {i}" for i in range(args.classes)]),
        tree=Forest((tree,)),
        objective=objective,
        train_dataset=[
            {"image": torch.zeros(3, args.image_size, args.image_size, dtype=torch.uint8), "label": 0}
        ],
    )
    return ready(trainer)


def ready(trainer: RobustCLIPTrainer) -> RobustCLIPTrainer:
    """The trainer, prepared for `step` as `train` would do it."""
    trainer.model.to(trainer.args.device)
    trainer.calibrate()
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    trainer.optimizer = torch.optim.AdamW(trained, lr=1e-6)
    trainer.model_prepared = trainer.accelerator.prepare(trainer.model)
    return trainer


def random_batch(args: argparse.Namespace, device: torch.device) -> dict:
    return {
        "pixels": torch.rand(args.batch, 3, args.image_size, args.image_size, device=device),
        "labels": torch.randint(args.classes, (args.batch,), device=device),
    }


def step(trainer: RobustCLIPTrainer, batch: dict) -> None:
    """One full training step, with the kernels of training."""
    trainer.model.train()
    trainer.optimizer.zero_grad()
    with fast_kernels(trainer.model, torch.bfloat16 if trainer.args.bf16 else None):
        trainer.compute_loss(trainer.model_prepared, batch).backward()
    trainer.optimizer.step()


def sized_parser(description: str) -> argparse.ArgumentParser:
    """Options that size the model, the classes, the batch and the attack."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="b32")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--patch_size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--depth", type=int, default=5)
    parser.add_argument("--num_steps", type=int, default=3)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--output", type=Path, help="JSON file for the result")
    return parser


def main() -> None:
    parser = sized_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        trainers = {one.name: build(one, args, directory) for one in (TeCoA(), HierRobust())}
        device = trainers["tecoa"].args.device
        batch = random_batch(args, device)
        steps = {name: partial(step, trainer, batch) for name, trainer in trainers.items()}
        times = interleave(steps, args.rounds, device.type)
    ratio = compare(times, "hier_robust", "tecoa")
    result = {
        "setting": {k: v for k, v in vars(args).items() if k != "output"} | {"device": str(device)},
        "torch": torch.__version__,
        "tecoa_seconds": [round(t, 4) for t in times["tecoa"]],
        "hier_robust_seconds": [round(t, 4) for t in times["hier_robust"]],
        "ratio_median": ratio["median"],
        "ratio_range": ratio["range"],
    }
    print(json.dumps(result, indent=1))
    if args.output:
        args.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
