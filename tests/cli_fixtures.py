"""A tiny data set on disk and the command line of a two-step run on it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny_data import PATHS, make_images


@dataclass(frozen=True)
class CommandLine:
    """Options of a run as a mapping; ``argv(**changes)`` is the list of flags, None leaves one out."""

    options: dict

    def argv(self, **changes) -> list[str]:
        merged = self.options | changes
        return [
            word for key, value in merged.items() if value is not None for word in (f"--{key}", str(value))
        ]


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tinyphotos")
    make_images(32).to_parquet(str(folder / "train.parquet"))
    make_images(16, seed=1).to_parquet(str(folder / "test.parquet"))
    (folder / "tiny.json").write_text(json.dumps(PATHS))
    return folder


def command_line(clip_dir, data_dir: Path, output_dir: Path) -> CommandLine:
    """A two-step run of the tiny model."""
    return CommandLine(
        {
            "model_name_or_path": clip_dir,
            "train_file": data_dir / "train.parquet",
            "eval_file": data_dir / "test.parquet",
            "tree": data_dir / "tiny.json",
            "output_dir": output_dir,
            "max_steps": 2,
            "per_device_train_batch_size": 8,
            "learning_rate": 1e-3,
            "logging_steps": 1,
            "eval_num_steps": 2,
            "disable_tqdm": "true",
        }
    )


@pytest.fixture()
def command(tiny_clip_dir, data_dir, tmp_path) -> CommandLine:
    return command_line(tiny_clip_dir, data_dir, tmp_path / "out")
