"""Trainers on the tiny CLIP or SigLIP and noise images, for tests of objectives and training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from tiny_data import CLASSES, make_images

from hf_hierrobust.adapters.trainable import GROUPS
from hf_hierrobust.attacks import Perturbation, TextAttack
from hf_hierrobust.data import ClassSet, PixelDataset
from hf_hierrobust.training import RobustCLIPTrainer, RobustTrainingArguments

DEFAULTS = {
    "objective": "tecoa",
    "max_steps": 2,
    "per_device_train_batch_size": 8,
    "learning_rate": 1e-2,
    "lr_scheduler_type": "constant",
    "optim": "sgd",  # Adam's first steps are signs, which rounding can flip
    "logging_steps": 1,
    "save_strategy": "no",
    "disable_tqdm": True,
    "bf16": False,
    "seed": 7,
}


@dataclass(kw_only=True)
class PhotoToPicture(TextAttack):
    """A text attack without a language model: one fixed word for another."""

    name: ClassVar[str] = "photo_to_picture"

    def run(self, texts, clean, encoder, score, generator):
        attacked = [text.replace("photo", "picture") for text in texts]
        return attacked, score(encoder(attacked), torch.arange(len(texts)))


def make_trainer(
    clip_dir,
    output_dir,
    *,
    tree=None,
    train=None,
    evaluation=None,
    objective=None,
    attack=None,
    trainer=None,
    **args,
) -> RobustCLIPTrainer:
    """A trainer on 32 images; ``objective`` and ``attack`` may be names or instances.

    Objectives that attack captions do so with `PhotoToPicture`; ``trainer`` holds further arguments.
    """
    named = {k: v for k, v in (("objective", objective), ("attack", attack)) if isinstance(v, str)}
    options = {**DEFAULTS, **args, **named}
    objective = None if isinstance(objective, str) else objective
    if objective is not None:
        del options["objective"]
    arguments = RobustTrainingArguments(output_dir=str(output_dir), **options)
    needs = (objective or arguments.build_objective()).needs
    return RobustCLIPTrainer(
        clip_dir,
        arguments,
        class_set=ClassSet.from_names(CLASSES),
        tree=tree,
        train_dataset=PixelDataset(make_images(32)) if train is None else train,
        eval_dataset=evaluation,
        objective=objective,
        attack=None if isinstance(attack, str) else attack,
        text_attack=PhotoToPicture() if "attacked_captions" in needs else None,
        **trainer or {},
    )


def weights(model) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def furthest(a: dict, b: dict) -> float:
    """Largest difference of any two entries; NaN (an uncalibrated head) equals NaN."""
    assert a.keys() == b.keys()
    return max(float((a[k].double() - b[k].double()).abs().nan_to_num().max()) for k in a)


def group_of(name: str) -> str:
    import re

    return next(group for group, pattern in GROUPS.items() if re.match(pattern, name))


def checkpoint_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The stock weights and the head of a saved model."""
    from safetensors.torch import load_file

    folder = Path(folder)
    head = load_file(folder / "hier_head.safetensors")
    return load_file(folder / "model.safetensors") | {f"hier_head.{k}": v for k, v in head.items()}


def train(*args, **kwargs):
    trainer = make_trainer(*args, **kwargs)
    trainer.train()
    return trainer


def batch_of(trainer, pixels, labels, **more):
    """The step's batch: with captions where the objective needs them."""
    return trainer.reader.read({"pixels": pixels, "labels": labels, **more}, trainer._starts)


def perturb(trainer, pixels, labels):
    """The trainer's perturbations of one batch."""
    return trainer.step.perturb(batch_of(trainer, pixels, labels), trainer._starts)[0]


def views_of(trainer, pixels, labels, perturbations=None):
    """Differentiable views of a batch under the trainer's model, and its targets."""
    views, batch = trainer.step.views, batch_of(trainer, pixels, labels)
    perturbations = perturbations or [Perturbation(pixels)]
    found, targets, _ = views.training(trainer.model, batch, perturbations, views.targets(batch))
    return found, targets


def inner_loss_of(trainer, pixels, labels, perturbation=None):
    """What the attack maximises, at a perturbation of a batch."""
    views, batch = trainer.step.views, batch_of(trainer, pixels, labels)
    loss = views.inner_loss(batch, views.targets(batch))
    return loss(*(perturbation or Perturbation(pixels)))


def first_batch(trainer):
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(8)])
    return batch["pixels"], batch["labels"]
