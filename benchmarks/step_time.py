"""Time of a training step of every method of compare_methods.py, as a multiple of TeCoA's.

    python benchmarks/step_time.py --model path/to/clip --mlm path/to/mlm           # the table's setting
    python benchmarks/step_time.py --mlm path/to/mlm                                # random ViT-B/32, 224 px

One step is the whole of `RobustCLIPTrainer`'s: attack, forward, backward, optimiser; bf16 autocast. The
methods take turns, in alternating order, so that a drift of the machine's speed hits all of them; ratios are
medians over rounds. Teacher and text attack are in it, the latter with its candidates known,
as in every epoch but the first.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path

import torch
from compare_methods import ATTACK, METHODS
from hier_overhead import random_batch, ready, step
from text_attack import with_tokens
from timing import compare, interleave
from transformers import AutoProcessor, CLIPConfig

from hf_hierrobust.data import load_class_set
from hf_hierrobust.demo.tiny import build_processor, build_tokenizer
from hf_hierrobust.hierarchy import load_forest
from hf_hierrobust.modeling import RobustCLIPModel
from hf_hierrobust.training import RobustCLIPTrainer, RobustTrainingArguments

RESULT = Path(__file__).parent / "results" / "step_time.json"


def load(args: argparse.Namespace):
    """A checkpoint, or random weights of ViT-B/32's size; with its processor."""
    if args.model:
        model = RobustCLIPModel.from_pretrained(args.model, dtype=torch.float32)
        return model, AutoProcessor.from_pretrained(args.model)
    prompts = [f"This is a photo of a {name}" for name in load_class_set("cifar100").class_names]
    tokenizer = build_tokenizer(prompts, max_length=77)
    torch.manual_seed(0)
    config = with_tokens(CLIPConfig(), tokenizer)  # ViT-B/32
    return RobustCLIPModel(config), build_processor(config.vision_config.image_size, tokenizer)


def build(name: str, args: argparse.Namespace, directory: str) -> RobustCLIPTrainer:
    """A trainer of one method, ready for `step`."""
    options = dict(METHODS[name]) | ATTACK
    tree = options.pop("tree", None)
    if options.get("text_attack") == "bert" and args.mlm:
        options["text_attack_args"] = {"model_name": str(args.mlm)}
    model, processor = load(args)
    class_set = load_class_set("cifar100")
    size = model.config.vision_config.image_size
    trainer = RobustCLIPTrainer(
        model,
        RobustTrainingArguments(
            output_dir=f"{directory}/{name}",
            bf16=True,
            disable_tqdm=True,
            save_strategy="no",
            **options,
        ),
        processing_class=processor,
        class_set=class_set,
        tree=None if tree is None else load_forest(tree).align(class_set.class_names),
        train_dataset=[{"image": torch.zeros(3, size, size, dtype=torch.uint8), "label": 0}],
    )
    return ready(trainer)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="folder of a CLIP; absent: random weights")
    parser.add_argument("--mlm", type=Path, help="folder of the masked language model")
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, default=RESULT)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        trainers = {name: build(name, args, directory) for name in dict.fromkeys(["tecoa", *args.methods])}
        first = trainers["tecoa"]
        # The table perturbs CIFAR's own 32 pixels, and the attacked function enlarges them.
        size = 32 if args.model else first.model.config.vision_config.image_size
        shape = argparse.Namespace(batch=args.batch, image_size=size, classes=len(first.class_set))
        batch = random_batch(shape, first.args.device)
        steps = {name: partial(step, trainer, batch) for name, trainer in trainers.items()}
        times = interleave(steps, args.rounds, first.args.device.type)
    result = {
        "setting": {
            "model": args.model.name if args.model else "random weights, ViT-B/32",
            "mlm": args.mlm.name if args.mlm else None,
            "image_size": size,
            "batch": args.batch,
            "bf16": True,
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "threads": torch.get_num_threads(),
        }
        | ATTACK,
        "torch": torch.__version__,
        "seconds": {name: [round(t, 4) for t in found] for name, found in times.items()},
        "ratio": {name: compare(times, name, "tecoa") for name in times},
    }
    print(json.dumps(result["ratio"], indent=1))
    args.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
