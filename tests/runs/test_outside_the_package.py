"""A new objective and a new attack, each in one file outside the package, in training and in evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_data import make_images
from tiny_runs import first_batch, make_trainer, perturb

from hf_hierrobust import OBJECTIVES, RobustCLIPTrainer, RobustTrainingArguments, evaluate
from hf_hierrobust.attacks import ATTACKS, TRAINING_ATTACKS
from hf_hierrobust.cli.main import main
from hf_hierrobust.evaluation import load_records

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def registries(monkeypatch):
    """The package's own objectives and attacks again, after each test."""
    import sys

    for registry in (OBJECTIVES, ATTACKS, TRAINING_ATTACKS):
        registry.names()
        monkeypatch.setattr(registry, "_classes", dict(registry._classes))
    yield
    for name in [name for name in sys.modules if name.startswith("hf_hierrobust_plugin_") or name in OWN]:
        del sys.modules[name]


OWN = ("own_objective", "own_attack")


def test_by_name_on_the_command_line(command, tmp_path):
    plugins = f"{HERE / 'own_objective.py'},{HERE / 'own_attack.py'}"
    options = {"plugins": plugins, "objective": "own_hinge", "attack": "own_step", "figures": "false"}
    options |= {"objective_args": '{"width": 0.5}', "eval_attack": "own_step", "eval_eps": "4/255"}
    options |= {"eval_num_steps": None}
    main(["train", *command.argv(**options)])
    out = tmp_path / "out"
    facts = json.loads((out / "config.json").read_text())["hier_robust"]
    assert (facts["objective"], facts["objective_args"]) == ("own_hinge", {"width": 0.5})
    assert facts["attack"]["name"] == "own_step"
    records = load_records(out / "results.json")
    assert {r.attack["name"] for r in records} == {"own_step"} and {r.objective for r in records} == {
        "own_hinge"
    }
    logged = json.loads((out / "trainer_state.json").read_text())["log_history"]
    assert all("hinge" in entry for entry in logged if "loss" in entry)
    assert "own_hinge" in (out / "README.md").read_text() and "own_step" in (out / "README.md").read_text()

    again = command.argv(plugins=plugins, eval_attack="own_step", eval_num_steps=None, eval_eps="4/255")
    again[again.index("--output_dir") + 1] = str(tmp_path / "again")
    again[again.index("--model_name_or_path") + 1] = str(out)
    flags = [again[i : i + 2] for i in range(0, len(again), 2)]
    kept = [word for flag in flags for word in flag if flag[0] in EVALUATED]
    main(["evaluate", *kept])
    repeated = load_records(tmp_path / "again" / "results.json")
    assert [r.robust_accuracy for r in repeated] == [r.robust_accuracy for r in records]


EVALUATED = {f"--{name}" for name in ("model_name_or_path", "eval_file", "tree", "output_dir", "plugins")}
EVALUATED |= {"--eval_attack", "--eval_eps"}


def test_by_instance_in_python(tiny_clip_dir, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    from own_attack import OneStep, OneTrainingStep
    from own_objective import Hinge

    trainer = RobustCLIPTrainer(
        tiny_clip_dir,
        RobustTrainingArguments(str(tmp_path), max_steps=2, per_device_train_batch_size=8, report_to="none"),
        train_dataset=make_images(32),
        objective=Hinge(width=2.0),
        attack=OneTrainingStep(eps="4/255"),
    )
    trainer.train()
    trainer.save_model()
    (record,) = evaluate(str(tmp_path), make_images(16, seed=1), attack=OneStep(eps="4/255"), progress=False)
    assert record.attack["name"] == "own_step" and record.attack["eps"] == pytest.approx(4 / 255)
    assert record.objective == "own_hinge" and record.num_samples == 16


def test_a_training_attack_of_ones_own_keeps_its_budget(tiny_clip_dir, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    from own_attack import OneTrainingStep

    trainer = make_trainer(tiny_clip_dir, tmp_path, objective="tecoa", attack=OneTrainingStep(eps="2/255"))
    pixels, labels = first_batch(trainer)
    (found,) = perturb(trainer, pixels, labels)
    assert torch.isclose((found.pixels - pixels).abs().max(), torch.tensor(2 / 255))


@pytest.mark.parametrize("kind", ["objective", "attack", "evaluation"])
def test_one_without_a_name_is_refused_when_handed_over(kind, tiny_clip_dir, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    from own_attack import OneStep, OneTrainingStep
    from own_objective import Hinge

    base = {"objective": Hinge, "attack": OneTrainingStep, "evaluation": OneStep}[kind]
    nameless, inherits = type("Mine", (base,), {"name": ""})(), type("Mine", (base,), {})()
    for instance, words in (
        (nameless, "Mine has no name"),
        (inherits, f"goes by the name .* of {base.__name__}"),
    ):
        with pytest.raises(ValueError, match=words):
            if kind == "evaluation":
                evaluate(tiny_clip_dir, make_images(8), attack=instance, progress=False)
            else:
                make_trainer(tiny_clip_dir, tmp_path, **({"objective": "tecoa"} | {kind: instance}))
