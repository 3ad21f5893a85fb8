"""A record as a run would write it, to be changed by tests."""

from __future__ import annotations

import math

from hf_hierrobust.evaluation.records import RobustnessRecord, describe_samples
from hf_hierrobust.geometry import simplex_margins
from hf_hierrobust.naming import level_name

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


KAPPA = 100.0
DEPTH_NORMS = (0.9, 0.7, 0.45)
EDGES = ((36, 36, 30), (9, 7, 7), None)


def depth_record(level: int, attacked: bool = True, **changes) -> RobustnessRecord:
    """The record of one of three levels (36, 9, 3 nodes) whose norms encode depth but for two edges."""
    middle, nodes, edges = DEPTH_NORMS[level], (36, 9, 3)[level], EDGES[level]
    largest = middle + 0.05
    depth = {
        "curvature": 1.0,
        "kappa": KAPPA,
        "nodes": nodes,
        "tangent_norm": middle,
        "ball_norm": math.tanh(middle),
        "largest_tangent_norm": largest,
        "bound": 4 * KAPPA * largest,
        "simplex": float(simplex_margins(math.tanh(middle), nodes, 1.0, KAPPA).hyperbolic),
        "clean_margin": [-1.0 - level, 4.0 - level, 9.0],
    }
    if attacked:
        depth["attacked_margin"] = [-6.0, -1.5, 3.0 - level]
    if edges:
        depth |= dict(zip(("edges", "edges_in_order", "edges_by_margin"), edges)) | {"gap_margin": 0.02}
    if level == 0:
        depth |= {"image_depth": 0.031, "images_not_nearer": 0.87}
    entries = {"level": level, "level_name": level_name(level), "classifier": "hyperbolic", "tree": "t"}
    return make_record(**entries | {"tree_hash": "ab", "depth": depth} | changes)
