"""What decides the weights of a training, as plain JSON: kept with checkpoints, compared before a resume."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from ..adapters.fingerprints import weights_hash
from ..digests import digest, plain
from .item_draws import drawing

if TYPE_CHECKING:
    from .arguments import RobustTrainingArguments

# Arguments that decide where, how fast and how loudly a training runs, and what is measured beside it.
WITHOUT_EFFECT_ON_WEIGHTS = frozenset(
    [
        "output_dir",
        "overwrite_output_dir",
        "resume_from_checkpoint",
        "resume_with_changes",
        "ignore_data_skip",
        "restore_callback_states_from_checkpoint",
        "do_train",
        "do_eval",
        "do_predict",
        "use_cpu",
        "local_rank",
        "debug",
        "skip_memory_metrics",
        "log_level",
        "log_level_replica",
        "log_on_each_node",
        "logging_strategy",
        "logging_steps",
        "logging_first_step",
        "logging_nan_inf_filter",
        "disable_tqdm",
        "report_to",
        "run_name",
        "project",
        "trackio_space_id",
        "trackio_bucket_id",
        "trackio_static_space_id",
        "include_num_input_tokens_seen",
        "eval_strategy",
        "eval_steps",
        "eval_delay",
        "eval_on_start",
        "per_device_eval_batch_size",
        "prediction_loss_only",
        "eval_do_concat_batches",
        "eval_use_gather_object",
        "eval_accumulation_steps",
        "include_for_metrics",
        "batch_eval_metrics",
        "bf16_full_eval",
        "fp16_full_eval",
        "robust_eval_samples",
        "robust_eval_steps",
        "save_strategy",
        "save_steps",
        "save_total_limit",
        "save_only_model",
        "save_on_each_node",
        "enable_jit_checkpoint",
        "push_to_hub",
        "hub_token",
        "hub_private_repo",
        "hub_model_id",
        "hub_strategy",
        "hub_always_push",
        "hub_revision",
        "gradient_checkpointing",
        "gradient_checkpointing_kwargs",
        "activation_checkpointing",
        "activation_checkpointing_kwargs",
        "torch_compile",
        "torch_compile_backend",
        "torch_compile_mode",
        "torch_empty_cache_steps",
        "use_liger_kernel",
        "liger_kernel_config",
        "use_cache",
        "auto_find_batch_size",
        "dataloader_num_workers",
        "dataloader_pin_memory",
        "dataloader_persistent_workers",
        "dataloader_prefetch_factor",
        "dataloader_multiprocessing_context",
        "dataloader_in_order",
        "remove_unused_columns",
        "label_names",
        "length_column_name",
        "accelerator_config",
        "parallelism_config",
        "ddp_find_unused_parameters",
        "ddp_bucket_cap_mb",
        "ddp_broadcast_buffers",
        "ddp_static_graph",
        "ddp_backend",
        "ddp_timeout",
        "fsdp",
        "fsdp_config",
        "deepspeed",
    ]
)
# What the recipe states as it really is, of an instance handed over as well.
_IN_RECIPE = frozenset(
    ["objective", "objective_args", "attack", "attack_args", "text_attack", "text_attack_args", "tree"]
)
IN_OPTIMIZER_STATE = frozenset(
    {
        "learning_rate",
        "scale_learning_rate",
        "weight_decay",
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "optim",
        "optim_args",
        "optim_target_modules",
        "lr_scheduler_type",
        "trained",
        "base_weights",
    }
)
"""Settings that a resumed optimizer and schedule take from the checkpoint, whatever is asked."""
SAMPLED_IMAGES = 16


def training_settings(
    args: RobustTrainingArguments,
    recipe: Mapping[str, Any],
    class_names: Sequence[str],
    dataset,
    trained: Mapping[str, int],
    model: nn.Module,
) -> dict:
    """Everything that decides the trained weights.

    Args:
        recipe: of the trainer: objective, attacks, template and trees as they are used.
        class_names: of the labels.
        dataset: training images.
        trained: parameters of each trained group.
        model: before its first step.
    """
    hidden = WITHOUT_EFFECT_ON_WEIGHTS | _IN_RECIPE
    own = {f.name: getattr(args, f.name) for f in fields(args) if f.name not in hidden}
    names = list(class_names)
    if not hasattr(dataset, "__len__"):  # the workers of a stream take its shards in turn
        own["dataloader_num_workers"] = max(1, args.dataloader_num_workers)
    facts = {
        "processes": args.world_size,
        "classes": names if len(names) <= 20 else digest(repr(names).encode()),
        **{f"data.{name}": value for name, value in data_facts(dataset).items()},
        "trained": trained,
        "base_weights": weights_hash(model),
    }
    return plain({**own, **_flat(recipe), **facts})


def data_facts(dataset) -> dict[str, Any]:
    """Which images, labels and captions a training reads: counts, and digests, of a few images only.

    Augmented images are read as the global generators have them at one fixed seed; those that still read
    differently twice are left out. No random number is drawn that the training would miss.
    """
    if dataset is None:
        return {}
    sized = hasattr(dataset, "__len__")
    found: dict[str, Any] = {"images": len(dataset) if sized else "stream"}
    for name in ("labels", "captions"):
        values = getattr(dataset, name, None)
        if values is not None and len(values):
            found[name] = digest(json.dumps(plain(list(values))).encode())
    digests = []
    for _ in range(2):
        with drawing(0):
            digests.append(_images_digest(dataset, sized))
    if digests[0] == digests[1]:
        found["pixels"] = digests[0]
    return found


def _images_digest(dataset, sized: bool) -> str:
    if sized:
        rows = np.unique(np.linspace(0, len(dataset) - 1, min(SAMPLED_IMAGES, len(dataset))).astype(int))
        items = (dataset[int(row)] for row in rows)
    else:
        items = islice(iter(dataset), SAMPLED_IMAGES)
    return digest(*(np.ascontiguousarray(item["image"]).tobytes() for item in items))


def _flat(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Nested options by their full name, ``attack.num_steps``: differences then name one value."""
    flat = {}
    for key, value in recipe.items():
        if isinstance(value, Mapping):
            flat |= {f"{key.removesuffix('_args')}.{name}": entry for name, entry in value.items()}
        else:
            flat[key] = value
    return flat
