"""The README is short, and its Python is run as it stands, on tiny data in place of the Hub's."""

from __future__ import annotations

import json
import re
from pathlib import Path

import datasets
import pytest
import torch
from tiny_data import PATHS, make_images

README = Path(__file__).resolve().parents[1] / "README.md"
DOCS = README.with_name("docs")


def blocks(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.S)


def test_the_readme_is_read_in_one_go():
    assert len(README.read_text().splitlines()) <= 200


def test_each_of_the_five_things_takes_at_most_eight_lines():
    for block in blocks(README):
        lines = [line for line in block.splitlines() if line.strip()]
        assert len(lines) <= 8, block


def test_links_lead_somewhere():
    for page in (README, *DOCS.glob("*.md")):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.fixture()
def world(tiny_clip_dir, tmp_path, monkeypatch):
    """What the README's snippets refer to, in small."""
    splits = datasets.DatasetDict(train=make_images(16), test=make_images(8, seed=1))
    splits = splits.rename_columns({"image": "img", "label": "fine_label"})
    monkeypatch.setattr(datasets, "load_dataset", lambda name: splits)
    tree = tmp_path / "tiny.json"
    tree.write_text(json.dumps(PATHS))
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 4))
    names = {"torch": torch, "net": net, "mean": [0.5] * 3, "std": [0.5] * 3}
    names |= {"pixels": torch.rand(4, 3, 8, 8), "labels": torch.arange(4)}
    words = {
        '"openai/clip-vit-base-patch32"': repr(tiny_clip_dir),
        '"you/robust-clip"': repr(str(tmp_path / "clip-hier")),
        '"clip-hier"': repr(str(tmp_path / "clip-hier")),
        'tree="cifar100"': f"tree={str(tree)!r}",
        "learning_rate=1e-4": "max_steps=1, per_device_train_batch_size=8, disable_tqdm=True",
        '"fox.jpg"': "data['test'][0]['image']",
    }
    return words, names


def test_the_snippets_run_as_they_stand(world):
    words, names = world
    for block in blocks(README):
        for word, real in words.items():
            block = block.replace(word, real)
        exec(compile(block, str(README), "exec"), names)
    records = names["records"]
    assert {record.attack["name"] for record in records} == {"noise"}
    assert names["result"].robust_correct.shape == (4,)
