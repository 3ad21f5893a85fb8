"""A batch, a calibrated head and class trees with padding, for tests of HierRobust."""

from __future__ import annotations

import torch

from hf_hierrobust.hierarchy import Forest, LabelTree
from hf_hierrobust.modeling.hier_head import HierHead
from hf_hierrobust.objectives import View

CLASSES = ("cat", "dog", "wolf", "bear", "rose", "tulip", "oak", "rock")
# Three levels; oak is padded once, rock twice.
KINDS = {
    "cat": ["pet", "animal"],
    "dog": ["pet", "animal"],
    "wolf": ["wild", "animal"],
    "bear": ["wild", "animal"],
    "rose": ["flower", "plant"],
    "tulip": ["flower", "plant"],
    "oak": ["oak", "plant"],
    "rock": ["rock", "rock"],
}
# Two levels and a single root.
PLACES = {c: ["indoor" if c in ("cat", "dog", "rose") else "outdoor", "anywhere"] for c in CLASSES}
DIM, BATCH, LOGIT_SCALE = 6, 11, 7.0
TREES = {"tree": [KINDS], "forest": [KINDS, PLACES]}


def forest_of(trees) -> Forest:
    return Forest(tuple(LabelTree.from_paths(t, name=f"t{i}") for i, t in enumerate(trees)))


def make_batch(names, seed=0, curvature=1.0, dtype=torch.float64):
    """Tangents of images and text nodes, labels that leave some nodes without an image, a calibrated head."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.8 * torch.randn(BATCH, DIM, generator=generator, dtype=torch.float64) / curvature**0.5
    # always as many draws, so that a node more does not change the others
    texts = 0.6 * torch.randn(32, DIM, generator=generator, dtype=torch.float64) / curvature**0.5
    texts = texts[: len(names)]
    labels = torch.tensor([0, 1, 0, 2, 4, 6, 7, 7, 4, 6, 0])
    head = HierHead(DIM, curvature=curvature)
    head.kappa.fill_(2.5)
    head.vic_radius.fill_(1.5)
    tangents = [t.to(dtype).requires_grad_() for t in (images, texts)]
    return *tangents, labels, head


def view_of(images, texts, head, **kwargs) -> View:
    return View(images, texts, images, texts, torch.tensor(LOGIT_SCALE, dtype=images.dtype), head, **kwargs)
