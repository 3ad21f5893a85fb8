"""No training argument is ignored: every field works or is refused by name, and stands in one table."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from argument_table import TABLE
from tiny_data import make_images
from tiny_runs import make_trainer, train

from hf_hierrobust.data import PixelDataset
from hf_hierrobust.training import RobustTrainingArguments, tracking
from hf_hierrobust.training.refusals import NEEDS, REFUSED, TRAINER_ARGUMENTS, default_of

FIELDS = {field.name: field for field in fields(RobustTrainingArguments)}


def arguments(tmp_path, **options) -> RobustTrainingArguments:
    return RobustTrainingArguments(**{"output_dir": str(tmp_path), "bf16": False} | options)


def test_kind10_every_field_stands_in_the_table_and_every_row_is_a_field():
    assert TABLE.keys() == FIELDS.keys()
    always = {name for name, row in TABLE.items() if row.verdict == "refused"} - {"ddp_backend"}
    assert always == REFUSED.keys()
    assert all(
        TABLE[name].company
        for name in NEEDS
        if name not in ("ddp_backend", "save_only_model", "save_total_limit")
    )


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_kind10_a_value_works_or_is_refused_by_the_fields_name(name, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda package: package)  # every tracker is there
    row, field = TABLE[name], FIELDS[name]
    assert row.value != default_of(field), "the value of the table must differ from the default"
    if row.verdict == "refused":
        with pytest.raises(ValueError, match=rf"{name}.*{row.why}"):
            arguments(tmp_path, **{name: row.value})
        return
    args = arguments(tmp_path, **{name: row.value}, **row.company)
    kept = getattr(args, name)
    kept = getattr(kept, "value", kept)
    if name not in ("accelerator_config", "debug", "report_to", "output_dir"):  # kept in another form
        assert kept == row.value
    if name in NEEDS and row.company:
        with pytest.raises(ValueError, match=f"{name}.*has no effect without"):
            arguments(tmp_path, **{name: row.value})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"adam_beta2": 0.9, "optim": "sgd"}, r"adam_beta2=0.9 has no effect with optim='sgd'"),
        ({"optim_args": "momentum=0.9"}, r"optim_args: 'momentum=0.9' has no effect with optim='adamw"),
        ({"optim_args": "momentum=0.9,mass=1", "optim": "sgd"}, r"optim_args: 'mass=1' has no effect"),
        ({"train_sampling_strategy": "group_by_length"}, "train_sampling_strategy='group_by_length'"),
        ({"accelerator_config": {"split_batches": True}}, "split_batches=True"),
        ({"debug": "tpu_metrics_debug"}, "tpu_metrics_debug"),
        ({"metric_for_best_model": "leaf_robust_accuracy"}, "metric_for_best_model=.* without eval_strategy"),
        ({"save_strategy": "best"}, "save_strategy='best' saves nothing without eval_strategy"),
        ({"save_total_limit": 2, "save_strategy": "no"}, "save_total_limit=2 has no effect without save"),
    ],
)
def test_kind10_what_others_make_useless_is_refused(options, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        arguments(tmp_path, **options)


@pytest.mark.parametrize("name", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_kind10_sharding_by_accelerates_configuration_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.setenv(name, "true")
    with pytest.raises(ValueError, match=name):
        arguments(tmp_path)


@pytest.mark.parametrize("name", sorted(TRAINER_ARGUMENTS))
def test_kind10_arguments_of_trainer_are_refused_by_name(name, tiny_clip_dir, tmp_path):
    with pytest.raises(ValueError, match=f"{name} cannot be used"):
        make_trainer(tiny_clip_dir, tmp_path, trainer={name: lambda *a, **k: None})


def test_kind10_options_beside_an_instance_are_refused(tiny_clip_dir, tmp_path):
    from hf_hierrobust.objectives import TeCoA

    with pytest.raises(ValueError, match=r"objective_args=.* has no effect beside the objective instance"):
        make_trainer(tiny_clip_dir, tmp_path, objective=TeCoA(), objective_args={"x": 1})
    with pytest.raises(ValueError, match="num_steps=3 has no effect: 'clean' trains on clean images"):
        make_trainer(tiny_clip_dir, tmp_path, objective="clean", num_steps=3)


def test_arguments_survive_a_copy(tmp_path):
    args = arguments(
        tmp_path, load_best_model_at_end=True, eval_strategy="steps", activation_checkpointing=True
    )
    assert replace(args, seed=3).seed == 3


def test_kind10_many_options_at_once_train(tiny_clip_dir, tmp_path):
    """What the table says works is also walked through by a training."""
    names = (
        "lr_scheduler_kwargs",
        "warmup_steps",
        "weight_decay",
        "gradient_accumulation_steps",
        "max_grad_norm",
        "activation_checkpointing",
        "torch_empty_cache_steps",
        "logging_first_step",
        "eval_on_start",
        "eval_accumulation_steps",
        "eval_delay",
        "data_seed",
        "train_sampling_strategy",
        "dataloader_drop_last",
        "skip_memory_metrics",
        "save_total_limit",
        "save_only_model",
    )
    options = {"save_strategy": "steps", "save_steps": 2}
    for name in names:
        options |= {name: TABLE[name].value} | TABLE[name].company
    trainer = train(
        tiny_clip_dir,
        tmp_path,
        objective="tecoa",
        evaluation=PixelDataset(make_images(5, seed=3)),
        per_device_train_batch_size=4,
        robust_eval_steps=1,
        **options | {"optim": "adamw_torch"},
    )
    assert trainer.state.global_step == 2
    accuracy = trainer.evaluate()["eval_leaf_clean_accuracy"]
    assert accuracy * 5 == pytest.approx(round(accuracy * 5)), "drop_last must not drop evaluation images"


def test_kind10_resume_from_checkpoint_as_an_argument_is_obeyed(tiny_clip_dir, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 2}
    train(tiny_clip_dir, tmp_path, **options | {"max_steps": 1})
    changed = {"resume_from_checkpoint": True, "resume_with_changes": True}  # one step more than before
    resumed = train(tiny_clip_dir, tmp_path, **options, **changed)
    assert [entry["step"] for entry in resumed.state.log_history if "loss" in entry] == [1, 2]
