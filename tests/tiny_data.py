"""The tiny CLIP, its classes and its images; a module because ``conftest`` names one file per folder."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import torch
from PIL import Image

WORDS = ["cat", "dog", "oak", "rose", "animal", "plant", "thing", "this is a photo of a", "picture"]
CLASSES = ("cat", "dog", "oak", "rose")
PATHS = {"cat": ["animal"], "dog": ["animal"], "oak": ["plant"], "rose": ["plant"]}


def make_tiny_clip(directory: Path, seed: int = 0) -> str:
    """A randomly initialised two-layer CLIP with tokenizer and processor, as stock transformers saves it."""
    from transformers import CLIPModel

    from hf_hierrobust.modeling.tiny import build_processor, build_tokenizer, tiny_clip_config

    tokenizer = build_tokenizer(WORDS)
    torch.manual_seed(seed)
    config = tiny_clip_config(tokenizer, vision_width=32, vision_layers=2, text_width=32, projection_dim=32)
    CLIPModel(config).save_pretrained(directory)
    build_processor(32, tokenizer).save_pretrained(directory)
    return str(directory)


def make_images(count: int, seed: int = 0, size: int = 32) -> datasets.Dataset:
    """Noise images whose mean colour tells the class, interleaved by class."""
    rng = np.random.default_rng(seed)
    colours = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [180, 180, 60]])
    labels = [i % 4 for i in range(count)]
    images = [
        Image.fromarray(np.clip(colours[y] + rng.normal(0, 40, (size, size, 3)), 0, 255).astype("uint8"))
        for y in labels
    ]
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))}
    )
    return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
