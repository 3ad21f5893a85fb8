"""One rank of a two-process training for `test_trainer_ddp`: <clip folder> <output folder>."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from tiny_data import PATHS, make_images
from tiny_runs import make_trainer, weights

from hf_hierrobust.data import PixelDataset, PixelStream
from hf_hierrobust.hierarchy import Forest, LabelTree

STILL = {"random_start": "zero"}
# Without a text perturbation the loss is a mean over images, equal however they are split; midpoints are too
# once they average over all processes.
RUNS = {
    "tecoa": {"objective": "tecoa", "attack_args": STILL, "learning_rate": 0.1},
    "hier_robust": {
        "objective": "hier_robust",
        "attack_args": STILL | {"text_eps": 0},
        "objective_args": {"pooling": "none"},
        "gradient_accumulation_steps": 2,
        "per_device_train_batch_size": 4,
    },
    "global midpoints": {
        "objective": "hier_robust",
        "attack_args": STILL | {"text_eps": 0},
        "objective_args": {"sync_midpoints": True},
    },
    "captions of a stream": {"objective": "advflyp", "attack_args": STILL, "learning_rate": 0.1},
    "measured before": {"objective": "tecoa", "attack_args": STILL, "learning_rate": 0.1},
}


def captioned_stream() -> PixelStream:
    images = make_images(32)
    captions = [f"photo {row} of a thing" for row in range(len(images))]
    return PixelStream(images.add_column("caption", captions).to_iterable_dataset())


def run(name: str, clip_dir: str, output_dir: Path, processes: int):
    """Two steps of 16 images in all; the batch of one process is twice that of one of two."""
    options = dict(RUNS[name])
    batch = options.pop("per_device_train_batch_size", 8) * 2 // processes
    trainer = make_trainer(
        clip_dir,
        output_dir / name,
        train=captioned_stream() if "stream" in name else None,
        tree=Forest((LabelTree.from_paths(PATHS, name="tiny"),)),
        evaluation=PixelDataset(make_images(21, seed=5)),
        per_device_train_batch_size=batch,
        per_device_eval_batch_size=4,
        eps="4/255",
        **options,
    )
    if name == "measured before":
        trainer.evaluate()
        trainer.predict(trainer.eval_dataset)
    trainer.train()
    return trainer, trainer.evaluate()


def main(clip_dir: str, output_dir: str) -> None:
    torch.set_num_threads(1)
    for name in RUNS:
        trainer, metrics = run(name, clip_dir, Path(output_dir), processes=2)
        assert trainer.args.world_size == 2 and trainer.args.parallel_mode.value == "distributed"
        random_start = torch.rand(2, generator=trainer._starts())
        out = {"weights": weights(trainer.model), "metrics": metrics, "random_start": random_start}
        torch.save(out, Path(output_dir) / f"{name}-{trainer.args.process_index}.pt")
        trainer.save_model()


if __name__ == "__main__":
    main(*sys.argv[1:])
