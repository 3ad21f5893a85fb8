"""What can be known to be wrong is found before anything is measured, trained or written."""

from __future__ import annotations

import re

import pytest

from hf_hierrobust.cli.arguments import build_arguments
from hf_hierrobust.cli.train import main
from hf_hierrobust.cli.values import read_values
from hf_hierrobust.runs.train import train
from hf_hierrobust.training import NothingTrainedError


@pytest.fixture()
def refused(command, monkeypatch, capsys):
    """The real entry point: one sentence before the base is measured, and no file is left."""

    def never(*args, **kwargs):
        raise AssertionError("the base was measured before the mistake was found")

    def run(words, **changes):
        monkeypatch.setattr("hf_hierrobust.runs.train.evaluate_run", never)
        with pytest.raises(SystemExit) as caught:
            main(command.argv(**{"objective": "hier_robust"} | changes))
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert caught.value.code == 2 and re.search(words, said), said
        output = command.options["output_dir"]
        assert not output.exists() or not any(output.iterdir())

    return run


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learning_rate": "-0.001"}, "learning_rate=-0.001 must be"),
        ({"learning_rate": "0"}, r"learning_rate=0.0 must be a positive number"),
        ({"learning_rate": "nan"}, "learning_rate=nan must be"),
        ({"learning_rate": "inf"}, "learning_rate=inf must be"),
        (
            {"per_device_train_batch_size": "0"},
            "per_device_train_batch_size=0",
        ),
        (
            {"per_device_train_batch_size": "-8"},
            "per_device_train_batch_size=-8",
        ),
        ({"per_device_eval_batch_size": "0"}, "per_device_eval_batch_size=0"),
        (
            {"gradient_accumulation_steps": "0"},
            "gradient_accumulation_steps=0",
        ),
        ({"weight_decay": "-0.1"}, r"weight_decay=-0.1 must be a number, at least 0"),
        ({"max_grad_norm": "nan"}, r"max_grad_norm=nan must be a number, at least 0"),
        ({"warmup_steps": "-3"}, r"warmup_steps=-3.* must be a number, at least 0"),
        ({"warmup_steps": "50"}, r"warmup_steps=50 does not end within the 2 steps"),
        ({"adam_beta1": "1.5"}, r"adam_beta1=1.5 must be a number in \[0, 1\)"),
        ({"adam_epsilon": "0"}, r"adam_epsilon=0.0 must be a positive number"),
        ({"seed": "-1"}, "seed=-1 must be"),
        ({"data_seed": str(2**40)}, r"data_seed=\d+ must be an integer from 0"),
        ({"save_steps": "0"}, r"save_steps=0.* must be a positive number"),
        ({"logging_steps": "-1"}, "logging_steps=-1.* must be"),
        ({"save_total_limit": "0"}, r"save_total_limit=0"),
        ({"dataloader_num_workers": "-1"}, r"dataloader_num_workers=-1 must be a number, at least 0"),
        ({"dataloader_persistent_workers": "true"}, "dataloader_persistent_workers=True has no effect"),
        (
            {"optim_args": "momentum=often"},
            "momentum",
        ),
        ({"lr_scheduler_type": "cosinus"}, r"cosinus"),
        ({"lr_scheduler_kwargs": '{"cycles": 2}'}, r"lr_scheduler_kwargs=\{'cycles': 2\} cannot be built"),
        (
            {
                "load_best_model_at_end": "true",
                "metric_for_best_model": "acuracy",
                "eval_strategy": "steps",
                "save_strategy": "steps",
            },
            r"metric_for_best_model='acuracy' is not reported: .*leaf_robust_accuracy",
        ),
    ],
    ids=lambda v: "-".join(v) if isinstance(v, dict) else "",
)
def test_kind25_wrong_arguments_are_found_before_the_base_is_measured(changes, words, refused):
    refused(words, **changes)


def test_kind25_an_optimizer_without_its_package_is_found_before_the_base_is_measured(refused, monkeypatch):
    monkeypatch.setattr("transformers.trainer_optimizer.is_galore_torch_available", lambda: False)
    targets = {"optim": "galore_adamw", "optim_target_modules": "all-linear"}
    refused("optim='galore_adamw' needs a package that is missing", **targets)


def test_kind25_an_output_directory_that_cannot_be_written_is_found_first(refused, tmp_path):
    """Before the model, which is not there either."""
    file = tmp_path / "file"
    file.write_text("text")
    for path in (file, file / "out"):
        refused("is a file|lies below the file", output_dir=path, model_name_or_path="nowhere")
    refused("cannot be written to", output_dir="/proc/out", model_name_or_path="nowhere")


def test_kind25_a_read_only_directory_is_found_first(refused, tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write anywhere
    refused("cannot be written", output_dir=tmp_path / "out", model_name_or_path="nowhere")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_steps": "0"}, "max_steps=0 trains nothing"),
        ({"max_steps": None, "num_train_epochs": "0"}, "num_train_epochs=0 trains nothing"),
        (
            {"dataloader_drop_last": "true", "per_device_train_batch_size": "64"},
            "dataloader_drop_last=True leaves no batch: 32 training images are fewer than the 64",
        ),
    ],
    ids=["steps", "epochs", "drop_last"],
)
def test_kind24_no_step_is_refused(changes, words, refused):
    refused(words, **changes)


def test_kind24_a_stream_without_a_length_is_refused(refused):
    refused(
        "a stream does not know how long an epoch is; give max_steps",
        streaming="true",
        max_steps=None,
    )


def test_kind24_steps_that_move_nothing_are_not_published(command):
    """One step, which a warm-up makes at a learning rate of 0."""
    values = read_values(
        "train", command.argv(objective="tecoa", max_steps=1, warmup_steps=1, eval_base="false")
    )
    with pytest.raises(NothingTrainedError, match="training moved no weight"):
        train(*build_arguments(values))
    names = {path.name for path in command.options["output_dir"].iterdir()}
    assert not names & {"README.md", "model.safetensors", "results.json"}
