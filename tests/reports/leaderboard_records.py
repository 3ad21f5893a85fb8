"""Records of a leaderboard's rows."""

from __future__ import annotations

from example_records import PGD, make_record

from hf_hierrobust.evaluation.records import describe_samples


def record(model="a", dataset="cifar10", clean=120, robust=80, eps=4, **changes):
    """200 images, eps/4 a step."""
    return make_record(
        **{
            "model": model,
            "dataset": dataset,
            "objective": "tecoa",
            "class_set": dataset,
            "attack": PGD | {"eps": eps / 255, "step_size": eps / 4 / 255},
            "sample_ids": describe_samples([f"{dataset}{i}" for i in range(200)], "all"),
            "clean_accuracy": clean / 200,
            "robust_accuracy": robust / 200,
            "base": None,
            "cost": {"forwards": 40.0, "backwards": 20.0},
        }
        | changes
    )
