"""The benchmarks' cells are command lines that the command takes."""

from __future__ import annotations

import importlib
import re
import shutil
from argparse import Namespace
from pathlib import Path

import pytest

from hf_hierrobust.cli.checks import check_early
from hf_hierrobust.cli.values import read_values

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.parametrize("stage", ["train", "standard", "pgd", "zero_shot", "transfer"])
def test_every_cell_of_auto_attack_on_photos_is_taken(stage, tiny_clip_dir, data_dir, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    cells, photos = (importlib.import_module(name) for name in ("cells", "auto_attack_photos"))
    for name in ("cifar100", *photos.SETS):
        (tmp_path / name).mkdir()
        for split in ("train", "test"):
            shutil.copy(data_dir / f"{split}.parquet", tmp_path / name / f"{split}.parquet")
    for name in photos.METHODS:
        shutil.copytree(tiny_clip_dir, tmp_path / "work/train" / name)
    taken = []

    def run(words, **_):
        command, *argv = words[3:]
        taken.append(check_early(command, read_values(command, argv)))

    monkeypatch.setattr(cells.subprocess, "run", run)
    args = Namespace(model=tiny_clip_dir, data=tmp_path, work=tmp_path / "work", samples=20)
    (tmp_path / "out").mkdir()
    for name, options in photos.STAGES[stage](args).items():
        cells.run_cell(tmp_path / "out" / name, options, photos.CONFIG)
    assert len(taken) >= len(photos.METHODS)
    if stage != "train":
        assert {one.eval_eps for one in taken} <= {"1/255", "4/255"}


def test_table_of_auto_attack_on_photos_is_of_the_committed_cells(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    photos = importlib.import_module("auto_attack_photos")
    table = photos.table()
    assert (BENCHMARKS / "results/auto_attack_photos.md").read_text() == table + "\n"
    cell = photos.load_cells(BENCHMARKS / "results/auto_attack_photos_standard")["base-4_255-part0"]
    for record in cell["records"]:
        title, stood = photos.TITLES[record["classifier"]], 100 * record["robust_accuracy"]
        start = f"| 4/255 | {record['level']} | {title} | base |"
        (row,) = [line for line in table.splitlines() if line.startswith(start)]
        assert f"| {100 * record['clean_accuracy']:.1f} | " in row and f" {stood:.1f} [" in row


def test_parts_of_other_weights_are_not_pooled(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    photos = importlib.import_module("auto_attack_photos")
    stage = "auto_attack_photos_standard"
    (tmp_path / stage).mkdir()
    text = (BENCHMARKS / "results" / stage / "base-4_255-part0.json").read_text()
    (tmp_path / stage / "base-4_255-part0.json").write_text(text)
    (tmp_path / stage / "base-4_255-part1.json").write_text(text)
    monkeypatch.setattr(photos, "RESULTS", tmp_path)
    assert "| base | 200 | 61.0 |" in photos.table()
    other = re.sub(r'"model_hash": "\w+"', '"model_hash": "0123456789abcdef"', text)
    (tmp_path / stage / "base-4_255-part1.json").write_text(other)
    with pytest.raises(ValueError, match="parts of base are of different weights"):
        photos.table()
