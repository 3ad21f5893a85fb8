"""Runs killed at any moment from start to card: the same command again ends where an undisturbed run does.

``HIERROBUST_KILLS=20`` kills twenty times in place of three.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from run_child import finish, kill_after
from tiny_runs import checkpoint_weights, furthest

from hf_hierrobust.evaluation import load_records

KILLS = int(os.environ.get("HIERROBUST_KILLS", "3"))
SAVING = {
    "steps": {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 2},
    "no": {"save_strategy": "no"},
}


@pytest.fixture(scope="module")
def options(tiny_clip_dir, data_dir) -> dict:
    return {
        "model_name_or_path": tiny_clip_dir,
        "train_file": data_dir / "train.parquet",
        "eval_file": data_dir / "test.parquet",
        "tree": data_dir / "tiny.json",
        "max_steps": 8,
        "per_device_train_batch_size": 8,
        "learning_rate": 2e-3,
        "logging_steps": 1,
        "eval_num_steps": 2,
        "eval_classifiers": "cosine",
        "disable_tqdm": "true",
        "resume_from_checkpoint": "true",
    }


def argv_of(options: dict, output: Path, saving: str) -> list[str]:
    merged = options | SAVING[saving] | {"output_dir": output}
    return [word for key, value in merged.items() for word in (f"--{key}", str(value))]


def records_of(folder: Path) -> list[dict]:
    """All that was measured; not when and in how many seconds."""
    found = [record.to_dict() for record in load_records(folder / "results.json")]
    return [{k: v for k, v in record.items() if k not in ("created", "wall_seconds")} for record in found]


def card_of(folder: Path) -> str:
    return (folder / "README.md").read_text()


@pytest.fixture(scope="module")
def undisturbed(options, tmp_path_factory) -> tuple[Path, float]:
    """Its folder, and the seconds it took."""
    output = tmp_path_factory.mktemp("undisturbed") / "run"
    seconds = finish(argv_of(options, output, "steps"), output.with_suffix(".log"))
    return output, seconds


def assert_equal_runs(folder: Path, other: Path) -> None:
    assert furthest(checkpoint_weights(folder), checkpoint_weights(other)) == 0
    assert records_of(folder) == records_of(other)
    assert card_of(folder) == card_of(other)
    names = {path.relative_to(folder).as_posix() for path in (folder / "figures").iterdir()}
    assert names == {path.relative_to(other).as_posix() for path in (other / "figures").iterdir()}


@pytest.mark.parametrize("trial", range(KILLS))
def test_kind22_a_killed_run_ends_like_an_undisturbed_one(trial, options, undisturbed, tmp_path):
    whole, seconds = undisturbed
    moment = random.Random(trial).uniform(0, seconds)
    argv = argv_of(options, tmp_path / "run", ("steps", "no")[trial % 2])
    killed = kill_after(argv, tmp_path / "log", moment)
    print(f"trial {trial}: {moment:.2f} s of {seconds:.2f} s, {'killed' if killed else 'was finished'}")
    finish(argv, tmp_path / "log")
    assert_equal_runs(tmp_path / "run", whole)
