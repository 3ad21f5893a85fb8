"""Fixtures shared by all tests: a tiny stock CLIP made offline, small image sets, the optional real data."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

WORDS = ["cat", "dog", "oak", "rose", "animal", "plant", "thing", "this is a photo of a", "picture"]


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Real photos and models kept beside the repository; tests that need them are skipped without."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not (path / "data").is_dir():
        pytest.skip("no ../shared with real data beside the repository")
    return path


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


@pytest.fixture(scope="session")
def tiny_clip_dir(tmp_path_factory) -> str:
    return make_tiny_clip(tmp_path_factory.mktemp("tiny-clip"))


CLASSES = ("cat", "dog", "oak", "rose")
PATHS = {"cat": ["animal"], "dog": ["animal"], "oak": ["plant"], "rose": ["plant"]}


@pytest.fixture(scope="session")
def tiny_tree():
    from hf_hierrobust.hierarchy import LabelTree

    return LabelTree.from_paths(PATHS, name="tiny")


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


@pytest.fixture(scope="session")
def tiny_images() -> datasets.Dataset:
    return make_images(32)
