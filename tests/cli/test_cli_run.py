"""The shipped example from flags to a sharable folder; killed, resumed, and measured again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from run_child import finish, kill_in
from safetensors.torch import load_file
from tiny_data import make_images
from tiny_runs import checkpoint_weights, furthest
from transformers import AutoProcessor, CLIPModel

from hf_hierrobust.cli.main import main as console
from hf_hierrobust.cli.train import main
from hf_hierrobust.evaluation import load_records
from hf_hierrobust.hierarchy import LabelTree
from hf_hierrobust.modeling import RobustCLIPModel

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "run_hier.py"
STEPS = 20
CLASSIFIERS = {
    0: {"cosine", "hyperbolic"},
    1: {"cosine", "hyperbolic", "rollup", "rollup-hyperbolic"},
}


LAUNCHER = ["-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1", "--cpu"]
LAUNCHER += ["--mixed_precision", "no", "--dynamo_backend", "no"]


def start(argv: list[str], launcher: Sequence[str] = ()) -> subprocess.Popen:
    """The example in a process of its own, with as many threads as this one: sums then round alike."""
    threads = str(torch.get_num_threads())
    environment = os.environ | {"OMP_NUM_THREADS": threads, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *launcher, str(SCRIPT), *argv]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.fixture(scope="module")
def config(tiny_clip_dir, data_dir, tmp_path_factory) -> Path:
    """A YAML file with everything but the output directory."""
    import yaml

    options = {
        "model_name_or_path": tiny_clip_dir,
        "train_file": str(data_dir / "train.parquet"),
        "eval_file": str(data_dir / "test.parquet"),
        "tree": str(data_dir / "tiny.json"),
        "max_steps": STEPS,
        "per_device_train_batch_size": 8,
        "learning_rate": "2e-3",
        "save_strategy": "steps",
        "save_steps": 2,
        "logging_steps": 1,
        "eval_num_steps": 2,
        "eval_attack": ["pgd-ce", "pgd-margin"],
        "eps": "2/255",
        "disable_tqdm": True,
        "bf16": False,  # some of these runs are processes of their own, to be compared with this one
        "bf16_search": False,
    }
    path = tmp_path_factory.mktemp("config") / "run.yaml"
    path.write_text(yaml.safe_dump(options))
    return path


@pytest.fixture(scope="module")
def resumed(config, tmp_path_factory) -> tuple[Path, str]:
    """Folder and words of a run that was killed in the middle and resumed by ``accelerate launch``."""
    output = tmp_path_factory.mktemp("runs") / "tiny-hier"
    argv = ["--config", str(config), "--output_dir", str(output)]
    process, deadline = start(argv), time.monotonic() + 600
    while not (output / "checkpoint-4").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    said, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, said
    assert (output / "checkpoint-4").exists(), said
    assert not (output / f"checkpoint-{STEPS}").exists() and not (output / "results.json").exists()
    process = start([*argv, "--resume_from_checkpoint", "true"], LAUNCHER)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    return output, said


def accuracies(folder: Path) -> list[tuple]:
    records = load_records(folder / "results.json")
    return [
        (r.level, r.classifier, r.clean_accuracy, r.robust_accuracy, r.sample_ids["sha256"]) for r in records
    ]


def test_a_killed_and_resumed_run_ends_where_an_uninterrupted_one_does(resumed, config, tmp_path):
    output, _ = resumed
    argv = ["--config", str(config), "--output_dir", str(tmp_path), "--figures", "false"]
    main(argv, objective="hier_robust")
    assert furthest(checkpoint_weights(output), checkpoint_weights(tmp_path)) == 0
    state = [json.loads((folder / "trainer_state.json").read_text()) for folder in (output, tmp_path)]
    losses = [[e["loss"] for e in s["log_history"] if "loss" in e] for s in state]
    assert losses[0] == losses[1] and len(losses[0]) == STEPS
    assert accuracies(output) == accuracies(tmp_path)


def test_a_killed_adapter_run_ends_where_an_uninterrupted_one_does(config, tmp_path):
    pytest.importorskip("peft")
    flags = {"lora_r": 2, "eval_base": "false", "figures": "false", "eval_samples": 4}
    argv = ["--config", str(config), *(word for k, v in flags.items() for word in (f"--{k}", str(v)))]
    killed, whole, log = tmp_path / "killed", tmp_path / "whole", tmp_path / "log"
    kill_in([*argv, "--output_dir", str(killed)], log, "hf_hierrobust.training.starting.seal_checkpoint", 3)
    assert (killed / "checkpoint-4").exists() and not (killed / "results.json").exists()
    finish([*argv, "--output_dir", str(killed), "--resume_from_checkpoint", "true"], log)
    finish([*argv, "--output_dir", str(whole)], log)
    assert furthest(checkpoint_weights(killed), checkpoint_weights(whole)) == 0
    adapters = [load_file(folder / "adapter/adapter_model.safetensors") for folder in (killed, whole)]
    assert furthest(*adapters) == 0


def test_records_cover_every_classifier_with_the_base_beside_it(resumed):
    output, said = resumed
    records = load_records(output / "results.json")
    found = {level: {r.classifier for r in records if r.level == level} for level in (0, 1)}
    assert found == CLASSIFIERS and len(records) == sum(map(len, CLASSIFIERS.values()))
    for record in records:
        assert (record.model, record.objective, record.num_samples) == ("tiny-hier", "hier_robust", 16)
        assert record.robust_accuracy <= record.clean_accuracy
        assert record.base["model"].startswith("tiny-clip")
        assert record.attack["loss"] == "ce+margin" and record.attack["eps_text"] == "2/255"
        assert record.attack["num_steps"] == 2 and record.tree == "tiny"
        assert record.num_classes == (4, 2)[record.level]
        assert f"| {record.classifier} |" in said
    before, after = (
        max(facts(r)["clean_accuracy"] for r in records if r.level == 0)
        for facts in (lambda r: r.base, lambda r: r.to_dict())
    )
    assert after > before, "twenty steps on colours should teach something"


def test_stock_transformers_loads_the_folder(resumed, data_dir):
    output, _ = resumed
    model, info = CLIPModel.from_pretrained(output, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and type(model) is CLIPModel
    ours = RobustCLIPModel.from_pretrained(output)
    assert ours.hier_head.calibrated
    processor = AutoProcessor.from_pretrained(output)
    images = list(make_images(2)["image"])
    inputs = processor(text=["cat", "dog"], images=images, return_tensors="pt", padding=True)
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits_per_image, ours(**inputs).logits_per_image)


def test_card_figures_and_tree_are_written(resumed, data_dir):
    output, _ = resumed
    card = (output / "README.md").read_text()
    for name in ("before_after", "training", "examples", "ball"):
        figure = output / "figures" / f"{name}.png"
        assert figure.stat().st_size > 2000 and f"figures/{name}.png" in card
    for words in ("hier_robust", "2604.18867", "2/255", "library_name: transformers", "objective.hnsa"):
        assert words in card
    assert str(output.parent) not in card and str(data_dir) not in card, "a path of this machine"
    assert "objective.forest" not in card
    trees = [LabelTree.from_json(path) for path in (output / "tiny.tree.json", data_dir / "tiny.json")]
    assert trees[0].hash == trees[1].hash == load_records(output / "results.json")[0].tree_hash


def test_nothing_else_is_left_behind(resumed):
    output, _ = resumed
    assert not [p for p in output.rglob("*") if p.suffix in (".bin", ".tmp", ".pkl")]
    facts = json.loads((output / "config.json").read_text())
    assert facts["architectures"] == ["CLIPModel"] and facts["model_type"] == "clip"
    assert facts["hier_robust"]["objective_args"]["hnsa"] == "both"


def test_the_same_directory_is_refused_and_can_be_overwritten(resumed, config, capsys):
    output, _ = resumed
    argv = ["--config", str(config), "--output_dir", str(output)]
    before = checkpoint_weights(output)
    with pytest.raises(SystemExit):
        main(argv, objective="hier_robust")
    assert "already holds a run" in capsys.readouterr().err
    assert furthest(before, checkpoint_weights(output)) == 0


def test_measuring_the_saved_folder_repeats_its_records(resumed, data_dir, tmp_path, capsys):
    """The console script on what a user would download: same accuracies as at the end of the training.

    Without the training data.
    """
    output, _ = resumed
    flags = {
        "model_name_or_path": output,
        "eval_file": data_dir / "test.parquet",
        "tree": data_dir / "tiny.json",
        "eps": "2/255",
        "eval_num_steps": 2,
        "output_dir": tmp_path,
    }
    console(["evaluate", *(word for key, value in flags.items() for word in (f"--{key}", str(value)))])
    assert accuracies(tmp_path) == accuracies(output)
    names = {(r.model, r.objective) for r in load_records(tmp_path / "results.json")}
    assert names == {("tiny-hier", "hier_robust")}
    assert "hyperbolic" in capsys.readouterr().out


def test_overwriting_starts_anew(config, tmp_path):
    (tmp_path / "checkpoint-7").mkdir()
    (tmp_path / "results.json").write_text("old")
    argv = ["--config", str(config), "--output_dir", str(tmp_path), "--overwrite_output_dir", "true"]
    flags = ["--max_steps", "1", "--eval_base", "false", "--eval_samples", "4", "--figures", "false"]
    main([*argv, *flags, "--objective", "tecoa"])
    assert not (tmp_path / "checkpoint-7").exists()
    records = load_records(tmp_path / "results.json")
    assert {r.objective for r in records} == {"tecoa"} and all(r.base is None for r in records)


def test_zero_shot_sets_are_measured_too(config, data_dir, tmp_path):
    flags = ["--max_steps", "1", "--eval_samples", "4", "--figures", "false", "--eval_classifiers", "cosine"]
    other = f"others={data_dir / 'train.parquet'}"
    main(
        ["--config", str(config), "--output_dir", str(tmp_path), "--zero_shot", other, *flags],
        objective="hier_robust",
    )
    records = load_records(tmp_path / "results.json")
    assert [(r.dataset, r.level) for r in records] == [
        (f"{data_dir.name}-test", 0),
        (f"{data_dir.name}-test", 1),
        ("others", 0),
    ]
    assert all(r.base is not None and r.num_samples == 4 for r in records)


def test_the_console_script_knows_its_commands(capsys):
    console(["--help"])
    said = capsys.readouterr().out
    assert "train" in said and "evaluate" in said
    with pytest.raises(SystemExit) as caught:
        console(["trian"])
    assert caught.value.code == 2 and "did you mean 'train'?" in capsys.readouterr().err
