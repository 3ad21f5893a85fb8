"""A record as a run would write it, to be changed by tests."""

from __future__ import annotations

from hf_hierrobust.evaluation.records import RobustnessRecord, describe_samples

PGD = {
    "name": "pgd",
    "norm": "linf",
    "eps": 4 / 255,
    "step_size": 1 / 255,
    "num_steps": 20,
    "restarts": 1,
    "random_start": True,
    "loss": "ce",
    "space": "native",
    "resolution": 32,
}


def make_record(**changes) -> RobustnessRecord:
    entries = {
        "model": "someone/robust-clip",
        "objective": "hier_robust",
        "dataset": "uoft-cs/cifar10",
        "split": "test",
        "class_set": "cifar10",
        "num_classes": 10,
        "level": 0,
        "level_name": "leaf",
        "classifier": "cosine",
        "attack": PGD,
        "seed": 0,
        "num_samples": 200,
        "sample_ids": describe_samples(range(200), "the first 200"),
        "clean_accuracy": 0.62,
        "robust_accuracy": 0.41,
        "base": {"model": "openai/clip", "clean_accuracy": 0.9, "robust_accuracy": 0.0},
        "wall_seconds": 3.5,
        "checks": {"zero_gradient_fraction": 0.0},
    }
    return RobustnessRecord(**(entries | changes))
