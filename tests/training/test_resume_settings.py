"""A run goes on only as what it was: the same steps, the same settings, or openly under others."""

from __future__ import annotations

import json
import shutil

import pytest
from tiny_data import make_images
from tiny_runs import furthest, make_trainer, weights

from hf_hierrobust.data import PixelDataset
from hf_hierrobust.hierarchy import LabelTree
from hf_hierrobust.seals import read_seal
from hf_hierrobust.training import ResumeError

OPTIONS = {
    "objective": "hier_robust",
    "max_steps": 3,
    "save_strategy": "steps",
    "save_steps": 1,
    "optim": "adamw_torch",
    "learning_rate": 1e-3,
    "lr_scheduler_type": "cosine",
}


@pytest.fixture(scope="module")
def trained(tiny_clip_dir, tiny_tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    trainer = make_trainer(tiny_clip_dir, folder, tree=tiny_tree, **OPTIONS)
    trainer.train()
    return trainer, folder


@pytest.fixture()
def killed(trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained[1], folder, ignore=shutil.ignore_patterns("checkpoint-3"))
    return folder


@pytest.mark.parametrize("resume", [True, "checkpoint-3"])
def test_kind20_a_finished_training_makes_no_further_step(
    resume, trained, tiny_clip_dir, tiny_tree, tmp_path
):
    straight, folder = trained
    shutil.copytree(folder, tmp_path / "run")
    trainer = make_trainer(tiny_clip_dir, tmp_path / "run", tree=tiny_tree, **OPTIONS)
    resume = resume if resume is True else str(tmp_path / "run" / resume)
    output = trainer.train(resume_from_checkpoint=resume)
    assert output.global_step == trainer.state.global_step == 3
    assert furthest(weights(trainer.model), weights(straight.model)) == 0
    assert not list((tmp_path / "run").glob("checkpoint-4"))
    assert [e for e in trainer.state.log_history if "loss" in e][-1]["step"] == 3


def test_kind20_a_finished_training_by_epochs_makes_no_further_step(tiny_clip_dir, tmp_path):
    options = {"num_train_epochs": 1, "max_steps": -1, "save_strategy": "steps", "save_steps": 1}
    straight = make_trainer(tiny_clip_dir, tmp_path, **options)
    straight.train()
    again = make_trainer(tiny_clip_dir, tmp_path, **options)
    assert again.train(resume_from_checkpoint=True).global_step == straight.state.global_step == 4
    assert furthest(weights(again.model), weights(straight.model)) == 0


def test_kind20_a_finished_training_gives_its_best_model_again(tiny_clip_dir, tmp_path):
    def trainer():
        found = make_trainer(
            tiny_clip_dir,
            tmp_path,
            evaluation=PixelDataset(make_images(8, seed=1)),
            eval_strategy="steps",
            eval_steps=1,
            save_strategy="steps",
            save_steps=1,
            robust_eval_steps=1,
            load_best_model_at_end=True,
            metric_for_best_model="leaf_clean_accuracy",
            greater_is_better=False,
            max_steps=3,
        )
        evaluate = found.evaluate
        found.evaluate = lambda *a, **k: (
            evaluate(*a, **k) | {"eval_leaf_clean_accuracy": found.state.global_step}
        )
        return found

    straight = trainer()
    straight.train()
    again = trainer()
    again.train(resume_from_checkpoint=True)
    assert furthest(weights(again.model), weights(straight.model)) == 0


OTHER = {
    "eps": ({"eps": "2/255"}, r"eps: '1/255' -> '2/255'"),
    "norm": ({"norm": "l2", "eps": "0.5"}, r"norm: 'linf' -> 'l2'"),
    "seed": ({"seed": 8}, r"seed: 7 -> 8"),
    "objective": ({"objective": "tecoa"}, r"objective: 'hier_robust' -> 'tecoa'"),
    "objective's options": ({"objective_args": {"hnsa": "upper"}}, r"objective\.hnsa: 'both' -> 'upper'"),
    "attack": ({"attack": "none"}, r"attack"),
    "attack's steps": ({"num_steps": 3}, r"num_steps: None -> 3"),
    "template": ({"template": "a {}"}, r"template: .* -> 'a \{\}'"),
    "batch size": ({"per_device_train_batch_size": 16}, r"per_device_train_batch_size: 8 -> 16"),
    "accumulation": ({"gradient_accumulation_steps": 2}, r"gradient_accumulation_steps: 1 -> 2"),
    "learning rate": ({"learning_rate": 2e-3}, r"learning_rate: 0\.001 -> 0\.002"),
    "schedule": ({"lr_scheduler_type": "linear"}, r"lr_scheduler_type: 'cosine' -> 'linear'"),
    "length": ({"max_steps": 5}, r"max_steps: 3 -> 5"),
    "optimizer": ({"optim": "sgd"}, r"optim: 'adamw_torch' -> 'sgd'"),
    "weight decay": ({"weight_decay": 0.1}, r"weight_decay: 0\.0 -> 0\.1"),
    "adapters": ({"lora_r": 2}, r"lora_r: None -> 2"),
    "number of images": ({"train": PixelDataset(make_images(24))}, r"data\.images: 32 -> 24"),
    "images": ({"train": PixelDataset(make_images(32, seed=5))}, r"data\.pixels"),
}


@pytest.mark.parametrize("name", OTHER)
def test_kind20_other_settings_are_refused_with_the_difference(name, killed, tiny_clip_dir, tiny_tree):
    changes, words = OTHER[name]
    if "lora_r" in changes:
        pytest.importorskip("peft")
    before = sorted(killed.rglob("*"))
    trainer = make_trainer(tiny_clip_dir, killed, tree=tiny_tree, **OPTIONS | changes)
    with pytest.raises(ResumeError, match=rf"checkpoint-2 was trained under other settings \(.*{words}"):
        trainer.train(resume_from_checkpoint=True)
    assert sorted(killed.rglob("*")) == before


def test_kind20_another_tree_is_refused(killed, tiny_clip_dir):
    tree = LabelTree.from_paths({"cat": ["a"], "dog": ["b"], "oak": ["a"], "rose": ["b"]}, name="tiny")
    trainer = make_trainer(tiny_clip_dir, killed, tree=tree, **OPTIONS)
    with pytest.raises(ResumeError, match="trees"):
        trainer.train(resume_from_checkpoint=True)


def test_kind20_another_base_model_is_refused(killed, tiny_tree, tmp_path):
    from tiny_data import make_tiny_clip

    trainer = make_trainer(make_tiny_clip(tmp_path / "clip", seed=3), killed, tree=tiny_tree, **OPTIONS)
    with pytest.raises(ResumeError, match="base_weights"):
        trainer.train(resume_from_checkpoint=True)


def test_kind20_what_decides_no_weight_may_change(killed, trained, tiny_clip_dir, tiny_tree):
    changes = {"logging_steps": 2, "save_steps": 3, "logging_first_step": True, "dataloader_num_workers": 0}
    trainer = make_trainer(tiny_clip_dir, killed, tree=tiny_tree, **OPTIONS | changes)
    trainer.train(resume_from_checkpoint=True)
    assert furthest(weights(trainer.model), weights(trained[0].model)) == 0


def test_kind20_a_change_that_was_asked_for_is_on_the_card(killed, tiny_clip_dir, tiny_tree):
    changes = {"eps": "2/255", "max_steps": 4, "resume_with_changes": True}
    trainer = make_trainer(tiny_clip_dir, killed, tree=tiny_tree, **OPTIONS | changes)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 4
    (change,) = read_seal(killed / "checkpoint-4")["changes"]
    assert change["step"] == 2 and change["changed"]["eps"] == ["1/255", "2/255"]
    facts = json.loads((killed / "checkpoint-4" / "config.json").read_text())["hier_robust"]
    assert facts["changes"] == [change]
    trainer.create_model_card()
    card = (killed / "README.md").read_text()
    assert "first 2 steps were trained under other settings" in card and "1/255" in card and "2/255" in card
    # and a second resume, under the new settings, keeps saying so
    again = make_trainer(tiny_clip_dir, killed, tree=tiny_tree, **OPTIONS | changes | {"max_steps": 5})
    again.train(resume_from_checkpoint=True)
    assert [c["step"] for c in read_seal(killed / "checkpoint-5")["changes"]] == [2, 4]


@pytest.mark.parametrize(
    ("name", "value"), [("learning_rate", 0.1), ("optim", "sgd"), ("weight_decay", 0.5), ("adam_beta1", 0.5)]
)
def test_kind20_what_the_saved_optimizer_would_ignore_cannot_change(
    name, value, killed, tiny_clip_dir, tiny_tree
):
    """The optimizer's state brings its own back, and the card would state the new one."""
    options = OPTIONS | {name: value, "resume_with_changes": True}
    with pytest.raises(ResumeError, match=rf"{name} cannot change at a resume.*model_name_or_path="):
        make_trainer(tiny_clip_dir, killed, tree=tiny_tree, **options).train(resume_from_checkpoint=True)
