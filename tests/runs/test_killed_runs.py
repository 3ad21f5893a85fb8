"""Runs killed at any moment from start to card: the same command again ends where an undisturbed run does.

``HIERROBUST_KILLS=20`` kills twenty times at random, in place of two, and at every boundary of the stages,
and draws the figures.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

import pytest
from run_child import CONTEXT, finish, kill_after, kill_in
from tiny_runs import checkpoint_weights, furthest

from hf_hierrobust.evaluation import load_records

KILLS = int(os.environ.get("HIERROBUST_KILLS", "2"))
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
        "figures": str(KILLS >= 20).lower(),
        "resume_from_checkpoint": "true",
    }


def argv_of(options: dict, output: Path, saving: str) -> list[str]:
    merged = options | SAVING[saving] | {"output_dir": output, "state_dir": output.with_suffix(".state")}
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
    server = CONTEXT.Process(target=time.sleep, args=(0,))  # imports the stack before anything is timed
    server.start()
    server.join()
    seconds = finish(argv_of(options, output, "steps"), output.with_suffix(".log"))
    return output, seconds


def assert_equal_runs(folder: Path, other: Path) -> None:
    assert furthest(checkpoint_weights(folder), checkpoint_weights(other)) == 0
    assert records_of(folder) == records_of(other)
    assert card_of(folder) == card_of(other)
    names = [sorted(path.name for path in one.glob("figures/*")) for one in (folder, other)]
    assert names[0] == names[1]


@pytest.mark.parametrize("trial", range(KILLS))
def test_kind22_a_killed_run_ends_like_an_undisturbed_one(trial, options, undisturbed, tmp_path):
    whole, seconds = undisturbed
    moment = random.Random(trial).uniform(0, seconds)
    argv = argv_of(options, tmp_path / "run", ("steps", "no")[trial % 2])
    while not kill_after(argv, tmp_path / "log", moment):  # it was faster than the undisturbed one
        shutil.rmtree(tmp_path / "run")
        moment *= 0.8
    print(f"trial {trial}: killed after {moment:.2f} s of {seconds:.2f} s")
    finish(argv, tmp_path / "log")
    assert_equal_runs(tmp_path / "run", whole)


MOMENTS = {  # function it dies in, at which call, stages finished without and with checkpoints, in short runs
    "before its base is measured": ("hf_hierrobust.runs.train.evaluate_run", 1, (0, 0), ()),
    "before its base's records are known": ("hf_hierrobust.training.run_state.measure", 1, (0, 0), ("no",)),
    "before its first step": ("hf_hierrobust.training.starting.fingerprints", 1, (1, 1), ()),
    "before a checkpoint is sealed": (
        "hf_hierrobust.training.starting.seal_checkpoint",
        2,
        (None, 1),
        (),
    ),
    "before its final weights are known": ("hf_hierrobust.runs.train.model_files", 1, (1, 2), ("no",)),
    "before its final evaluation": ("hf_hierrobust.runs.train.evaluate_run", 2, (2, 2), ()),
    "after its final verdicts": ("hf_hierrobust.runs.train.with_base", 1, (2, 2), ("no",)),
    "before its report": ("hf_hierrobust.runs.train.report", 1, (3, 3), ()),
    "before its figures": ("hf_hierrobust.runs.report.draw_figures", 1, (3, 3), ()),
    "before its card": ("hf_hierrobust.training.trainer.write_card", 1, (3, 3), ("no",)),
}
WITH_VERDICTS = ("before its base's records are known", "after its final verdicts")
"""Moments at which an evaluation has left verdicts but no records."""
SAID = (
    "the base model is not measured again",
    "nothing is trained again",
    "the trained model is not measured again",
)


DEATHS = [
    (moment, saving)
    for moment, (_, _, finished, short) in MOMENTS.items()
    for saving in SAVING
    if finished[saving == "steps"] is not None and (KILLS >= 20 or saving in short)
]


@pytest.mark.parametrize(("moment", "saving"), DEATHS)
def test_kind22_nothing_finished_is_done_again(moment, saving, options, undisturbed, tmp_path):
    """Killed at a boundary of its stages: what was finished before is said not to be done again."""
    function, count, finished, _ = MOMENTS[moment]
    finished = finished[saving == "steps"]
    argv, log = argv_of(options, tmp_path / "run", saving), tmp_path / "log"
    kill_in(argv, log, function, count)
    log.unlink()
    finish(argv, log)
    said = log.read_text()
    assert [words in said for words in SAID] == [finished >= n for n in (1, 2, 3)], said[-3000:]
    assert ("verdicts of an earlier start" in said) == (moment in WITH_VERDICTS)
    assert_equal_runs(tmp_path / "run", undisturbed[0])


def test_kind22_a_finished_run_says_so_and_changes_nothing(options, undisturbed, tmp_path):
    output = tmp_path / "run"
    shutil.copytree(undisturbed[0], output)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    finish(argv_of(options, output, "steps"), tmp_path / "log")
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
    assert all(words in (tmp_path / "log").read_text() for words in SAID)


def test_kind22_damaged_final_weights_come_from_the_last_checkpoint(options, undisturbed, tmp_path):
    output = tmp_path / "run"
    shutil.copytree(undisturbed[0], output)
    (output / "model.safetensors").write_bytes(b"")
    finish(argv_of(options, output, "steps"), tmp_path / "log")
    assert "model.safetensors holds 0 of the" in (tmp_path / "log").read_text()
    assert_equal_runs(output, undisturbed[0])


def test_kind22_other_evaluation_settings_measure_again_and_train_nothing(options, undisturbed, tmp_path):
    output = tmp_path / "run"
    shutil.copytree(undisturbed[0], output)
    finish(argv_of(options | {"eval_num_steps": 1}, output, "steps"), tmp_path / "log")
    said = (tmp_path / "log").read_text()
    assert [words in said for words in SAID] == [False, True, False]
    assert {r["attack"]["num_steps"] for r in records_of(output)} == {1}
    assert furthest(checkpoint_weights(output), checkpoint_weights(undisturbed[0])) == 0
