"""Code blocks of README and documentation, and a small world in which they run as they stand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import datasets
import pytest
import torch
from tiny_data import CLASSES, PATHS, make_images

from hf_hierrobust.attacks import ATTACKS
from hf_hierrobust.objectives import OBJECTIVES

ROOT = Path(__file__).resolve().parents[1]
README, DOCS = ROOT / "README.md", ROOT / "docs"
GENERATED = ("api", "_build")
PAGES = [README, *(p for p in sorted(DOCS.rglob("*.md")) if p.relative_to(DOCS).parts[0] not in GENERATED)]
FENCE = re.compile(r"^( *)```(.*?)\n(.*?)^ *```$", flags=re.S | re.M)
NOT_RUN = re.compile(r"no-run: \S.{5,}")


def fenced(path: Path, language: str) -> list[tuple[str, str]]:
    """What follows the language on the opening line, and the code, of each block in it."""
    found = []
    for indent, info, code in FENCE.findall(path.read_text()):
        word, _, rest = info.partition(" ")
        if word == language:
            found.append((rest, re.sub(f"^{indent}", "", code, flags=re.M)))
    return found


def captioned(images: datasets.Dataset) -> datasets.Dataset:
    """The images with two captions each in place of labels."""
    texts = [[f"a picture of a {CLASSES[y]}", f"this is a photo of a {CLASSES[y]}"] for y in images["label"]]
    return images.remove_columns("label").add_column("captions", texts)


@pytest.fixture()
def world(tiny_clip_dir, tmp_path, monkeypatch):
    """What the snippets refer to, in small: words to replace, and names."""
    splits = datasets.DatasetDict(train=make_images(16), test=make_images(8, seed=1))
    raw = splits.rename_columns({"image": "img", "label": "fine_label"})

    def load_dataset(name, split=None, **where):
        return splits[split] if split else raw

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for registry in (OBJECTIVES, ATTACKS):  # what a page registers stays on the page
        registry.names()
        monkeypatch.setattr(registry, "_classes", dict(registry._classes))
    monkeypatch.chdir(tmp_path)
    tree = tmp_path / "tiny.json"
    tree.write_text(json.dumps(PATHS))
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(4))
    net(torch.zeros(1, 3, 32, 32))
    names = {"torch": torch, "net": net, "mean": [0.5] * 3, "std": [0.5] * 3, "data": splits}
    names |= {"pixels": torch.rand(4, 3, 32, 32), "labels": torch.arange(4), "model": tiny_clip_dir}
    names |= {"pixel_values": torch.rand(1, 3, 32, 32), "flickr": captioned(splits["test"])}
    words = {
        '"openai/clip-vit-base-patch32"': repr(tiny_clip_dir),
        '"you/robust-clip"': repr(tiny_clip_dir),
        'tree="cifar100"': f"tree={str(tree)!r}",
        "learning_rate=1e-4": "max_steps=1, per_device_train_batch_size=8, disable_tqdm=True",
        '"you/robust-clip-l14-336"': repr(tiny_clip_dir),
        'attack="pgd"': 'attack="pgd", num_steps=2',
        'attack="autoattack"': 'attack="pgd", num_steps=2',
        '"metrics/': f'"{ROOT}/metrics/',
        "transfer=True": "transfer=True, num_steps=2",
        '"fox.jpg"': "data['test'][0]['image']",
        "num_samples=1000": "num_samples=8",
        'AutoAttack(eps="4/255")': 'AutoAttack(["apgd-ce"], eps="4/255")',
    }
    return words, names


def run_blocks(path: Path, world) -> dict:
    """Execute the page's Python from top to bottom in one namespace, and return it."""
    words, names = world
    for mark, block in fenced(path, "python"):
        if mark:
            continue
        for word, real in words.items():
            block = block.replace(word, real)
        exec(compile(block, str(path), "exec"), names)
    return names
