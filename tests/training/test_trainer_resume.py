"""Checkpoints: a resumed run is the uninterrupted one, torn checkpoints are passed over, runs do not mix."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_runs import checkpoint_weights, furthest, make_trainer, weights

from hf_hierrobust.hierarchy import Forest
from hf_hierrobust.seals import read_seal
from hf_hierrobust.training import (
    OutputDirError,
    last_good_checkpoint,
    prepare_output_dir,
    remove_earlier_run,
)
from hf_hierrobust.training.checkpoints import seal_checkpoint

OPTIONS = {
    "objective": "hier_robust",
    "max_steps": 6,  # into the second epoch: 32 images in batches of 8
    "save_strategy": "steps",
    "save_steps": 1,
    "optim": "adamw_torch",
    "learning_rate": 1e-3,
    "lr_scheduler_type": "cosine",
    "gradient_accumulation_steps": 1,
}


@pytest.fixture(scope="module")
def uninterrupted(tiny_clip_dir, tiny_tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    trainer = make_trainer(tiny_clip_dir, folder, tree=Forest((tiny_tree,)), **OPTIONS)
    trainer.train()
    return trainer, folder


@pytest.mark.parametrize("step", [2, 5], ids=["mid-epoch", "second epoch"])
def test_a_resumed_run_equals_the_uninterrupted_one(step, uninterrupted, tiny_clip_dir, tiny_tree, tmp_path):
    """Bit by bit: weights, head, logged terms; whatever the global generators were at the restart."""
    straight, folder = uninterrupted
    torch.manual_seed(999)
    resumed = make_trainer(tiny_clip_dir, tmp_path, tree=Forest((tiny_tree,)), **OPTIONS)
    resumed.train(resume_from_checkpoint=str(folder / f"checkpoint-{step}"))
    assert resumed.state.global_step == 6
    assert furthest(weights(straight.model), weights(resumed.model)) == 0
    assert float(resumed.model.hier_head.kappa) == float(straight.model.hier_head.kappa) > 0
    logs = [[entry for entry in t.state.log_history if "loss" in entry] for t in (straight, resumed)]
    assert logs[0] == logs[1] and len(logs[0]) == 6


def test_the_head_comes_from_the_checkpoint(uninterrupted, tiny_clip_dir, tiny_tree, tmp_path):
    """And not from the calibration that every training starts with."""
    _, folder = uninterrupted
    copy = tmp_path / "checkpoint-6"
    shutil.copytree(folder / "checkpoint-6", copy)
    from safetensors.torch import load_file, save_file

    head = load_file(copy / "hier_head.safetensors")
    save_file(head | {"kappa": torch.tensor(123.0)}, copy / "hier_head.safetensors")
    sealed = read_seal(copy)
    seal_checkpoint(copy, sealed["settings"], sealed["changes"])
    trainer = make_trainer(tiny_clip_dir, tmp_path, tree=Forest((tiny_tree,)), **OPTIONS)
    trainer.train(resume_from_checkpoint=str(copy))
    assert float(trainer.model.hier_head.kappa) == 123


def test_checkpoints_hold_the_head_and_no_pickle_of_arguments(uninterrupted):
    _, folder = uninterrupted
    states = [checkpoint_weights(folder / f"checkpoint-{n}") for n in (1, 6)]
    assert furthest(*states) > 0
    assert "hier_head.log_image_scale" in states[0]
    assert not list(folder.rglob("training_args.bin"))


def test_the_best_model_comes_back_with_its_head(tiny_clip_dir, tiny_tree, tmp_path):
    from tiny_data import make_images

    from hf_hierrobust.data import PixelDataset

    trainer = make_trainer(
        tiny_clip_dir,
        tmp_path,
        tree=Forest((tiny_tree,)),
        evaluation=PixelDataset(make_images(8, seed=1)),
        robust_eval_steps=1,
        eval_strategy="steps",
        eval_steps=1,
        load_best_model_at_end=True,
        **OPTIONS | {"max_steps": 3},
    )
    assert trainer.args.metric_for_best_model == "leaf_robust_accuracy"
    evaluate = trainer.evaluate  # best is the first: any fixed choice but the last will do
    trainer.evaluate = lambda *a, **k: (
        evaluate(*a, **k) | {"eval_leaf_robust_accuracy": -trainer.state.global_step}
    )
    trainer.train()
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-1")
    assert furthest(weights(trainer.model), checkpoint_weights(tmp_path / "checkpoint-1")) == 0
    assert furthest(weights(trainer.model), checkpoint_weights(tmp_path / "checkpoint-3")) > 0


# ---- output directories ----


@pytest.fixture()
def run_dir(uninterrupted, tmp_path):
    """A killed run: checkpoints 4, 5, 10 and nothing else. Names must sort as numbers."""
    _, folder = uninterrupted
    for step, name in ((4, 4), (5, 5), (6, 10)):
        shutil.copytree(folder / f"checkpoint-{step}", tmp_path / f"checkpoint-{name}")
    return tmp_path


def test_resume_takes_the_newest_checkpoint(run_dir):
    assert prepare_output_dir(run_dir, resume=True) == str(run_dir / "checkpoint-10")


@pytest.mark.parametrize(
    "lost",
    [
        "config.json",
        "model.safetensors",
        "hier_head.safetensors",
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "trainer_state.json",
    ],
)
def test_a_torn_checkpoint_is_passed_over(lost, run_dir):
    (run_dir / "checkpoint-10" / lost).unlink()
    assert last_good_checkpoint(run_dir) == run_dir / "checkpoint-5"
    assert prepare_output_dir(run_dir, resume=True) == str(run_dir / "checkpoint-5")
    with pytest.raises(FileNotFoundError, match=r"checkpoint-10' is not a whole checkpoint"):
        prepare_output_dir(run_dir, resume=str(run_dir / "checkpoint-10"))


@pytest.mark.parametrize("text", ["", '{"global_step": 10, "log_hist'])
def test_a_state_file_cut_off_is_passed_over(text, run_dir):
    (run_dir / "checkpoint-10" / "trainer_state.json").write_text(text)
    assert prepare_output_dir(run_dir, resume=True) == str(run_dir / "checkpoint-5")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_checkpoint_of_diverged_weights_is_passed_over(value, run_dir):
    """A step that overflows is saved before the next loss shows it."""
    path = run_dir / "checkpoint-10" / "model.safetensors"
    state = load_file(path)
    next(iter(state.values())).view(-1)[0] = value
    save_file(state, path, metadata={"format": "pt"})
    assert last_good_checkpoint(run_dir) == run_dir / "checkpoint-5"
    assert prepare_output_dir(run_dir, resume=True) == str(run_dir / "checkpoint-5")
    with pytest.raises(ValueError, match=r"checkpoint-10' holds NaN or infinite weights: resume from an ear"):
        prepare_output_dir(run_dir, resume=str(run_dir / "checkpoint-10"))


def test_the_trainer_itself_keeps_runs_apart(run_dir, tiny_clip_dir, tiny_tree):
    """From Python too: refused, resumed from the last good checkpoint, or started anew."""

    def trainer(**changes):
        return make_trainer(tiny_clip_dir, run_dir, tree=Forest((tiny_tree,)), **OPTIONS | changes)

    with pytest.raises(OutputDirError, match="overwrite_output_dir"):
        trainer().train()
    (run_dir / "checkpoint-10" / "optimizer.pt").unlink()
    resumed = trainer()
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 6 and resumed.state.log_history[0]["step"] == 1
    assert furthest(weights(resumed.model), checkpoint_weights(run_dir / "checkpoint-6")) == 0
    anew = trainer(overwrite_output_dir=True, max_steps=1)
    anew.train()
    assert [path.name for path in run_dir.glob("checkpoint-*")] == ["checkpoint-1"]


def test_a_named_checkpoint_is_taken(run_dir):
    assert prepare_output_dir(run_dir, resume=str(run_dir / "checkpoint-4")) == str(run_dir / "checkpoint-4")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        prepare_output_dir(run_dir, resume=str(run_dir / "nowhere"))


def test_another_run_is_not_overwritten_unasked(run_dir):
    before = sorted(run_dir.rglob("*"))
    words = r"holds a run \(checkpoint-4.*resume_from_checkpoint true.*overwrite_output_dir true"
    with pytest.raises(OutputDirError, match=words):
        prepare_output_dir(run_dir)
    assert prepare_output_dir(run_dir, overwrite=True) is None
    assert sorted(run_dir.rglob("*")) == before, "nothing may go before the new run can start"


def test_a_finished_run_without_checkpoints_cannot_be_resumed(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(OutputDirError, match="without a whole checkpoint"):
        prepare_output_dir(tmp_path, resume=True)
    assert prepare_output_dir(tmp_path, resume=True, overwrite=True) is None


def test_a_run_killed_before_its_first_checkpoint_starts_again(tmp_path):
    (tmp_path / "checkpoint-1").mkdir()
    assert prepare_output_dir(tmp_path, resume=True) is None
    assert prepare_output_dir(tmp_path / "absent", resume=True) is None
    assert prepare_output_dir(tmp_path / "absent") is None


def test_removing_a_run_keeps_what_is_not_its_own(run_dir):
    for name in ("config.json", "model.safetensors", "hier_head.safetensors", "results.json", "notes.txt"):
        (run_dir / name).touch()
    remove_earlier_run(run_dir)
    assert [p.name for p in run_dir.iterdir()] == ["notes.txt"]
    remove_earlier_run(run_dir / "absent")
