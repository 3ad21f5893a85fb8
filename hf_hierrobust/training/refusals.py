"""Options of `TrainingArguments` and `Trainer` that robust training cannot honour: refused, never ignored."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields

from transformers import Trainer, TrainingArguments

SHARDED = "attacks differentiate through the whole model on every process, which sharding takes apart"
REFUSED: dict[str, str] = {
    "average_tokens_across_devices": "losses are means over images, not over tokens",
    "batch_eval_metrics": "accuracies are means over the whole evaluation set",
    "bf16_full_eval": "it would turn the weights themselves to bf16, and verdicts are fp32",
    "deepspeed": SHARDED,
    "do_eval": "call trainer.evaluate(), or set eval_strategy",
    "do_predict": "call trainer.predict(dataset)",
    "do_train": "call trainer.train()",
    "eval_do_concat_batches": "accuracies are means over the whole evaluation set",
    "eval_use_gather_object": "verdicts are tensors, which are gathered as such",
    "fp16": "attack gradients underflow in half precision and no loss scale covers them; use bf16, or leave "
    "both off",
    "fp16_full_eval": "it would turn the weights themselves to fp16, and verdicts are fp32",
    "fsdp": SHARDED,
    "fsdp_config": SHARDED,
    "hub_token": "it is written to disk in clear with the arguments: use HF_TOKEN instead",
    "include_for_metrics": "the evaluation has no loss, and its inputs are not kept",
    "include_num_input_tokens_seen": "images are not tokens",
    "label_names": "labels are always called 'labels'",
    "label_smoothing_factor": "every objective computes its own loss, in which labels are not smoothed",
    "length_column_name": "images are not grouped by length",
    "liger_kernel_config": "there are no such kernels for CLIP and SigLIP",
    "local_rank": "the launcher says it in the environment: start with torchrun or accelerate launch",
    "logging_nan_inf_filter": "a loss that is not finite stops the run",
    "neftune_noise_alpha": "no objective trains on noisy token embeddings; text attacks are text_attack",
    "parallelism_config": SHARDED,
    "prediction_loss_only": "the evaluation has no loss, only verdicts",
    "remove_unused_columns": "it drops the images and labels that the collator reads",
    "use_cache": "it is for generation",
    "use_liger_kernel": "there are no such kernels for CLIP and SigLIP",
}
"""Fields that must keep their default, and why."""

TRAINER_ARGUMENTS: dict[str, str] = {
    "compute_loss_func": "the loss is the objective's: hand over an objective",
    "data_collator": "pixels must reach the attack unnormalised, in [0, 1]: transform the data set instead",
    "model_init": "hand over the model",
    "preprocess_logits_for_metrics": "the evaluation gives verdicts, not logits",
}
"""Arguments of `Trainer` that are refused, and why."""

_SAMPLING = ("random", "sequential")
_OPTIMIZER_FIELDS = ("adam_beta1", "adam_beta2", "adam_epsilon")

Condition = Callable[[TrainingArguments], bool]
NEEDS: dict[str, tuple[Condition, str]] = {
    **dict.fromkeys(
        ("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs"),
        (lambda a: bool(a.activation_checkpointing or a.gradient_checkpointing), "activation_checkpointing"),
    ),
    **dict.fromkeys(
        ("dataloader_multiprocessing_context", "dataloader_persistent_workers", "dataloader_prefetch_factor"),
        (lambda a: a.dataloader_num_workers > 0, "dataloader_num_workers above 0"),
    ),
    "ddp_backend": (lambda a: "LOCAL_RANK" in os.environ, "several processes, started by torchrun"),
    "eval_delay": (lambda a: _text(a.eval_strategy) != "no", "eval_strategy"),
    "eval_steps": (lambda a: _text(a.eval_strategy) == "steps", "eval_strategy='steps'"),
    "metric_for_best_model": (lambda a: _text(a.eval_strategy) != "no", "eval_strategy"),
    "greater_is_better": (
        lambda a: a.metric_for_best_model is not None or selects(a),
        "metric_for_best_model",
    ),
    **dict.fromkeys(("hub_always_push", "hub_strategy"), (lambda a: a.push_to_hub, "push_to_hub")),
    "optim_target_modules": (
        lambda a: any(name in _text(a.optim) for name in ("galore", "apollo")),
        "a GaLore or Apollo optimiser (optim)",
    ),
    **dict.fromkeys(
        ("project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"),
        (lambda a: "trackio" in _reporters(a), "report_to='trackio'"),
    ),
    "run_name": (lambda a: bool(_reporters(a)), "report_to"),
    **dict.fromkeys(
        ("save_only_model", "save_total_limit"), (lambda a: _text(a.save_strategy) != "no", "save_strategy")
    ),
}
"""Fields that have an effect only together with another, which is named."""


def selects(args: TrainingArguments) -> bool:
    """Whether something chooses by a metric: the best checkpoint or a schedule."""
    plateau = _text(args.lr_scheduler_type) in ("reduce_lr_on_plateau", "greedy")
    return args.load_best_model_at_end or _text(args.save_strategy) == "best" or plateau


def default_of(field: Field):
    """The default value of a dataclass field."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def refuse_fields(args: TrainingArguments) -> None:
    """Refuse fields that would be ignored or break the training, before anything is loaded.

    Raises:
        ValueError: naming the field, its value, and what to do.
    """
    for field in fields(args):
        name, value = field.name, getattr(args, field.name)
        if _same(value, default_of(field)):
            continue
        if name == "do_eval" and _text(args.eval_strategy) != "no":  # transformers sets it itself
            continue
        if name in REFUSED:
            # A token must not reach a log.
            shown = "" if name == "hub_token" else f"={value!r}"
            raise ValueError(f"{name}{shown} cannot be used: {REFUSED[name]}")
        if name in NEEDS and not NEEDS[name][0](args):
            raise ValueError(f"{name}={value!r} has no effect without {NEEDS[name][1]}")
    if _text(args.save_strategy) == "best" and _text(args.eval_strategy) == "no":
        raise ValueError(
            f"save_strategy={_text(args.save_strategy)!r} saves nothing without eval_strategy: set that, or "
            "save by steps or epoch"
        )
    if args.train_sampling_strategy not in _SAMPLING:
        raise ValueError(
            f"train_sampling_strategy={args.train_sampling_strategy!r} cannot be used: images have no "
            f"length; choose one of {', '.join(_SAMPLING)}"
        )
    if "tpu_metrics_debug" in (args.debug if isinstance(args.debug, (str, list)) else ()):
        raise ValueError("debug='tpu_metrics_debug' cannot be used: attacks do not run on TPUs")
    for name, what in (("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed")):
        if os.environ.get(name, "false").lower() in ("true", "1", "yes"):
            raise ValueError(f"accelerate's configuration asks for {what} ({name}): {SHARDED}")


def refuse_optimizer_options(args: TrainingArguments) -> None:
    """Refuse options that the chosen optimiser does not read.

    Args:
        args: after ``TrainingArguments.__post_init__``.

    Raises:
        ValueError: an ``adam_*`` field or a key of ``optim_args`` without effect.
    """
    found = _optimizer_options(args)
    if found is None:
        return
    defaults = {field.name: default_of(field) for field in fields(args)}
    for name in _OPTIMIZER_FIELDS:
        if (
            getattr(args, name) != defaults[name]
            and _optimizer_options(args, **{name: defaults[name]}) == found
        ):
            raise ValueError(f"{name}={getattr(args, name)!r} has no effect with optim={_text(args.optim)!r}")
    pairs = [pair for pair in (args.optim_args or "").replace(" ", "").split(",") if pair]
    for pair in pairs:
        rest = ",".join(other for other in pairs if other != pair) or None
        if _optimizer_options(args, optim_args=rest) == found:
            raise ValueError(f"optim_args: {pair!r} has no effect with optim={_text(args.optim)!r}")


def refuse_trainer_arguments(given: Mapping[str, object]) -> None:
    """Refuse arguments of `Trainer` that would be ignored or break the training.

    Raises:
        ValueError: naming the argument, and what to do.
    """
    for name, reason in TRAINER_ARGUMENTS.items():
        if given.get(name) is not None:
            raise ValueError(f"{name} cannot be used: {reason}")


def _optimizer_options(args: TrainingArguments, **changes) -> dict | None:
    """What the optimiser would be built with; None where only a model tells, or its library is missing."""
    twin = copy.copy(args)
    for name, value in changes.items():
        setattr(twin, name, value)
    try:
        return dict(Trainer.get_optimizer_cls_and_kwargs(twin)[1])
    except Exception:  # GaLore and its like ask the model; libraries raise what they like
        return None


def _same(value: object, default: object) -> bool:
    empty = (None, [], {}, "", False)
    return value == default or (value in empty and default in empty) or _text(value) == _text(default)


def _text(value: object) -> str:
    return str(getattr(value, "value", value))


def _reporters(args: TrainingArguments) -> list[str]:
    named = args.report_to
    named = named if isinstance(named, list) else [named]
    return [name for name in named if name not in (None, "none")]
