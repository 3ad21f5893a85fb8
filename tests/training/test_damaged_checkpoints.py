"""A newest checkpoint that is torn or flipped is passed over, with its reason; nothing trained is lost."""

from __future__ import annotations

import shutil

import pytest
from tiny_runs import checkpoint_weights, furthest, make_trainer, weights

from hf_hierrobust.training import (
    OutputDirError,
    ResumeError,
    last_good_checkpoint,
    prepare_output_dir,
)

OPTIONS = {
    "objective": "hier_robust",
    "max_steps": 4,
    "save_strategy": "steps",
    "save_steps": 1,
    "optim": "adamw_torch",
    "learning_rate": 1e-3,
}


def empty(path):
    path.write_bytes(b"")


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"\0")


def remove(path):
    path.unlink()


DAMAGES = [
    ("optimizer.pt", empty, "optimizer.pt holds 0 of the"),
    ("optimizer.pt", flip, "optimizer.pt is not what was saved: its SHA-256 differs"),
    ("scheduler.pt", cut, "scheduler.pt holds"),
    ("scheduler.pt", remove, "scheduler.pt is missing"),
    ("rng_state.pth", empty, "rng_state.pth holds 0 of the"),
    ("rng_state.pth", flip, "rng_state.pth is not what was saved"),
    ("model.safetensors", cut, "model.safetensors cannot be read"),
    ("model.safetensors", flip, "model.safetensors is not what was saved"),
    ("hier_head.safetensors", empty, "hier_head.safetensors holds 0 of the"),
    ("hier_head.safetensors", flip, "hier_head.safetensors is not what was saved"),
    ("trainer_state.json", cut, "trainer_state.json holds"),
    ("trainer_state.json", lengthen, "trainer_state.json holds"),
    ("config.json", remove, "config.json is missing"),
    ("tokenizer.json", cut, "tokenizer.json holds"),
    ("checkpoint.json", remove, "checkpoint.json is missing: saving was not finished"),
    ("checkpoint.json", cut, "checkpoint.json cannot be read"),
    ("checkpoint.json", flip, "checkpoint.json"),
]


@pytest.fixture(scope="module")
def trained(tiny_clip_dir, tiny_tree, tmp_path_factory):
    """Four steps and a checkpoint of each."""
    folder = tmp_path_factory.mktemp("trained")
    trainer = make_trainer(tiny_clip_dir, folder, tree=tiny_tree, **OPTIONS)
    trainer.train()
    return trainer, folder


@pytest.fixture()
def killed(trained, tmp_path):
    """What a run killed after its third step leaves."""
    folder = tmp_path / "run"
    shutil.copytree(trained[1], folder, ignore=shutil.ignore_patterns("checkpoint-4"))
    return folder


@pytest.mark.parametrize(
    ("name", "damage", "words"), DAMAGES, ids=[f"{n}-{d.__name__}" for n, d, _ in DAMAGES]
)
def test_kind13_a_damaged_newest_checkpoint_is_passed_over(
    name, damage, words, trained, killed, tiny_clip_dir, tiny_tree, caplog
):
    damage(killed / "checkpoint-3" / name)
    trainer = make_trainer(tiny_clip_dir, killed, tree=tiny_tree, **OPTIONS)
    trainer.train(resume_from_checkpoint=True)
    said = [record.getMessage() for record in caplog.records if "is passed over" in record.getMessage()]
    assert len(said) == 1 and "checkpoint-3" in said[0] and words in said[0]
    assert trainer.start.checkpoint == str(killed / "checkpoint-2")
    assert furthest(weights(trainer.model), weights(trained[0].model)) == 0
    assert (killed / "set_aside" / "checkpoint-3").is_dir(), "moved, not deleted"
    assert furthest(*(checkpoint_weights(f / "checkpoint-3") for f in (killed, trained[1]))) == 0


def test_kind13_a_damaged_adapter_is_passed_over(tiny_clip_dir, tmp_path, tiny_tree):
    pytest.importorskip("peft")
    make_trainer(tiny_clip_dir, tmp_path, tree=tiny_tree, lora_r=2, **OPTIONS | {"max_steps": 2}).train()
    flip(tmp_path / "checkpoint-2" / "adapter" / "adapter_model.safetensors")
    assert last_good_checkpoint(tmp_path) == tmp_path / "checkpoint-1"


def test_kind13_a_torn_checkpoint_is_never_the_one_that_rotation_keeps(killed, tiny_clip_dir, tiny_tree):
    """Two places for checkpoints: a torn one of a later step took one, and the whole ones went."""
    shutil.copytree(killed / "checkpoint-3", killed / "checkpoint-90")
    empty(killed / "checkpoint-90" / "optimizer.pt")
    trainer = make_trainer(tiny_clip_dir, killed, tree=tiny_tree, save_total_limit=1, **OPTIONS)
    trainer.train(resume_from_checkpoint=True)
    assert last_good_checkpoint(killed) == killed / "checkpoint-4"


def test_kind13_older_checkpoints_go_only_once_the_new_one_is_whole(
    killed, tiny_clip_dir, tiny_tree, monkeypatch
):
    def killed_while_sealing(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("hf_hierrobust.training.starting.seal_checkpoint", killed_while_sealing)
    trainer = make_trainer(tiny_clip_dir, killed, tree=tiny_tree, save_total_limit=1, **OPTIONS)
    with pytest.raises(KeyboardInterrupt):
        trainer.train(resume_from_checkpoint=True)
    assert (killed / "checkpoint-4").is_dir()
    assert last_good_checkpoint(killed) == killed / "checkpoint-3"


def test_kind13_all_checkpoints_damaged_is_an_error_that_says_why(killed):
    for path in killed.glob("checkpoint-*"):
        empty(path / "optimizer.pt")
    before = sorted(killed.rglob("*"))
    with pytest.raises(
        ResumeError, match=r"checkpoint-3: optimizer.pt holds 0 of the .* Nothing was deleted"
    ):
        prepare_output_dir(killed, resume=True)
    assert sorted(killed.rglob("*")) == before


def test_kind12_checkpoints_of_weights_alone_are_neither_resumed_nor_deleted(
    tiny_clip_dir, tiny_tree, tmp_path
):
    options = OPTIONS | {"max_steps": 2, "save_only_model": True}
    make_trainer(tiny_clip_dir, tmp_path, tree=tiny_tree, **options).train()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    words = (
        r"checkpoint-2: it holds weights, but no optimizer .*save_only_model=True.*overwrite_output_dir true"
    )
    for steps in (2, 3):
        again = make_trainer(tiny_clip_dir, tmp_path, tree=tiny_tree, **options | {"max_steps": steps})
        with pytest.raises(ResumeError, match=words):
            again.train(resume_from_checkpoint=True)
        with pytest.raises(OutputDirError, match="already holds a run"):
            again.train()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    with pytest.raises(FileNotFoundError, match="no optimizer and generator states"):
        prepare_output_dir(tmp_path, resume=str(tmp_path / "checkpoint-1"))


def test_kind12_a_stranger_s_weights_are_not_started_over(tmp_path):
    """Checkpoints that another tool saved have no seal: nothing says that they were unfinished."""
    (tmp_path / "checkpoint-5").mkdir()
    (tmp_path / "checkpoint-5" / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(ResumeError, match=r"checkpoint-5: checkpoint\.json is missing"):
        prepare_output_dir(tmp_path, resume=True)


def test_kind12_resuming_an_earlier_step_keeps_the_later_ones(killed, tiny_clip_dir, tiny_tree):
    trainer = make_trainer(tiny_clip_dir, killed, tree=tiny_tree, **OPTIONS)
    before = checkpoint_weights(killed / "checkpoint-3")
    trainer.train(resume_from_checkpoint=str(killed / "checkpoint-1"))
    assert furthest(before, checkpoint_weights(killed / "set_aside" / "checkpoint-3")) == 0


def test_kind12_a_checkpoint_of_elsewhere_does_not_clear_the_directory(
    killed, tiny_clip_dir, tiny_tree, tmp_path
):
    other = tmp_path / "other"
    make_trainer(tiny_clip_dir, other, tree=tiny_tree, **OPTIONS | {"max_steps": 1}).train()
    with pytest.raises(OutputDirError, match="already holds a run"):
        prepare_output_dir(other, resume=str(killed / "checkpoint-2"))


def test_kind12_weights_that_python_saved_are_not_trained_over(tiny_clip_dir, tmp_path):
    """No checkpoints, but `save_model` at the end: a resume would start at 0 and write over them."""
    trainer = make_trainer(tiny_clip_dir, tmp_path)
    trainer.train()
    trainer.save_model()
    before = (tmp_path / "model.safetensors").read_bytes()
    for resume in (True, None):
        with pytest.raises(OutputDirError, match="already holds a run"):
            make_trainer(tiny_clip_dir, tmp_path, seed=8).train(resume_from_checkpoint=resume)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_kind12_a_training_without_any_weights_on_disk_may_simply_start_again(tiny_clip_dir, tmp_path):
    """``run.json`` alone is no run that anything could be lost of."""
    for _ in range(2):
        make_trainer(tiny_clip_dir, tmp_path).train()
