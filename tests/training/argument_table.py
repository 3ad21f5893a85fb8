"""Every field of `RobustTrainingArguments`: what it does here, or why it is refused.

`works` rows hold a value and, where the field needs company, the company; `refused` rows the value and words
of the message. A field of a future transformers that stands here nowhere fails `test_argument_table`.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Row(NamedTuple):
    """One field.

    ``verdict``: "works" or "refused". ``value``: one that differs from the default. ``why``: what it does, or
    words of the refusal. ``company``: other fields that the value needs; without them it is refused.
    """

    verdict: str
    value: Any
    why: str
    company: dict[str, Any] = {}


def works(value, why: str, **company) -> Row:
    return Row("works", value, why, company)


def refused(value, why: str, **company) -> Row:
    return Row("refused", value, why, company)


EVALUATING = {"eval_strategy": "steps", "eval_steps": 2}

TABLE: dict[str, Row] = {
    # ---- of this package ----
    "objective": works("tecoa", "the training objective"),
    "objective_args": works({"hnsa": "upper"}, "options of the objective; unknown ones are refused"),
    "attack": works("pgd", "the training attack"),
    "attack_args": works({"random_start": "zero"}, "options of the attack; unknown ones are refused"),
    "text_attack": works("synonym", "the attack on captions; refused beside objectives that use none"),
    "text_attack_args": works({"num_candidates": 5}, "options of the text attack", text_attack="bert"),
    "tree": works("cifar100", "class trees of objective and evaluation"),
    "lora_r": works(2, "trains adapters of this rank"),
    "lora_alpha": works(4.0, "their scale", lora_r=2),
    "lora_dropout": works(0.1, "dropout on their input", lora_r=2),
    "lora_towers": works("vision", "where they sit", lora_r=2),
    "visual_prompt_tokens": works(2, "trains prompt tokens"),
    "visual_prompt_border": works(2, "trains a border of pixels"),
    "norm": works("l2", "norm of the threat model", eps="1.0"),
    "eps": works("4/255", "budget of the threat model"),
    "step_size": works("2/255", "step of the training attack"),
    "num_steps": works(3, "steps of the training attack"),
    "threat_space": works("model", "resolution of the perturbation"),
    "template": works("an image of a {}", "prompt of classes and superclasses"),
    "robust_eval_samples": works(16, "images of each evaluation set, whatever its type"),
    "robust_eval_steps": works(2, "PGD steps of the evaluation"),
    "calibration_samples": works(8, "images that calibrate the head; refused where none is calibrated"),
    "resume_with_changes": works(True, "goes on under other settings, which the card then states"),
    "overwrite_output_dir": works(True, "starts anew over another run"),
    # ---- of transformers: model, optimiser, schedule ----
    "output_dir": works("another", "where checkpoints go"),
    "per_device_train_batch_size": works(4, "batch of a process"),
    "num_train_epochs": works(1.0, "passes over the data"),
    "max_steps": works(2, "steps, in place of epochs"),
    "learning_rate": works(1e-3, "as in transformers"),
    "lr_scheduler_type": works("linear", "as in transformers"),
    "lr_scheduler_kwargs": works({"num_cycles": 2}, "as in transformers", lr_scheduler_type="cosine"),
    "warmup_steps": works(1, "as in transformers"),
    "optim": works("sgd", "as in transformers"),
    "optim_args": works("momentum=0.9", "read by the optimiser, or refused", optim="sgd"),
    "weight_decay": works(0.1, "as in transformers"),
    "adam_beta1": works(0.8, "read by the optimiser, or refused", optim="adamw_torch"),
    "adam_beta2": works(0.98, "read by the optimiser, or refused", optim="adamw_torch"),
    "adam_epsilon": works(1e-6, "read by the optimiser, or refused", optim="adamw_torch"),
    "optim_target_modules": works(["attn"], "of GaLore and Apollo", optim="galore_adamw"),
    "gradient_accumulation_steps": works(2, "as in transformers"),
    "average_tokens_across_devices": refused(False, "means over images"),
    "max_grad_norm": works(0.5, "as in transformers"),
    "label_smoothing_factor": refused(0.1, "every objective computes its own loss"),
    "bf16": works(True, "training forwards under autocast; verdicts stay fp32"),
    "fp16": refused(True, "gradients underflow"),
    "bf16_full_eval": refused(True, "verdicts are fp32"),
    "fp16_full_eval": refused(True, "verdicts are fp32"),
    "tf32": works(False, "as in transformers; True needs a GPU that has it"),
    "activation_checkpointing": works(True, "as in transformers"),
    "activation_checkpointing_kwargs": works(
        {"use_reentrant": False}, "as in transformers", activation_checkpointing=True
    ),
    "gradient_checkpointing": works(True, "older name of activation_checkpointing"),
    "gradient_checkpointing_kwargs": works(
        {"use_reentrant": False}, "older name", activation_checkpointing=True
    ),
    "torch_compile": works(True, "model and attack are compiled"),
    "torch_compile_backend": works("eager", "of both", torch_compile=True),
    "torch_compile_mode": works("default", "of both", torch_compile=True),
    "use_liger_kernel": refused(True, "no such kernels"),
    "liger_kernel_config": refused({"rope": True}, "no such kernels"),
    "use_cache": refused(True, "generation"),
    "neftune_noise_alpha": refused(5.0, "noisy token embeddings"),
    "torch_empty_cache_steps": works(1, "as in transformers"),
    "auto_find_batch_size": works(True, "the card states the batch that ran"),
    # ---- logs ----
    "logging_strategy": works("epoch", "as in transformers"),
    "logging_steps": works(3, "as in transformers"),
    "logging_first_step": works(True, "as in transformers"),
    "log_on_each_node": works(False, "as in transformers"),
    "logging_nan_inf_filter": refused(False, "not finite stops the run"),
    "include_num_input_tokens_seen": refused("all", "images are not tokens"),
    "log_level": works("error", "as in transformers"),
    "log_level_replica": works("error", "as in transformers"),
    "disable_tqdm": works(True, "as in transformers"),
    "report_to": works("tensorboard", "as in transformers"),
    "run_name": works("mine", "name in the tracker", report_to="tensorboard"),
    "project": works("mine", "of trackio", report_to="trackio"),
    "trackio_space_id": works("a/b", "of trackio", report_to="trackio"),
    "trackio_bucket_id": works("a/b", "of trackio", report_to="trackio"),
    "trackio_static_space_id": works("a/b", "of trackio", report_to="trackio"),
    # ---- evaluation ----
    "eval_strategy": works("epoch", "as in transformers"),
    "eval_steps": works(2, "as in transformers", eval_strategy="steps"),
    "eval_delay": works(1, "as in transformers", **EVALUATING),
    "per_device_eval_batch_size": works(4, "as in transformers"),
    "prediction_loss_only": refused(True, "no loss"),
    "eval_on_start": works(True, "as in transformers; needs an evaluation set"),
    "eval_do_concat_batches": refused(False, "whole evaluation set"),
    "eval_use_gather_object": refused(True, "gathered as such"),
    "eval_accumulation_steps": works(1, "as in transformers"),
    "include_for_metrics": refused(["inputs"], "inputs are not kept"),
    "batch_eval_metrics": refused(True, "whole evaluation set"),
    "load_best_model_at_end": works(True, "by robust leaf accuracy", **EVALUATING, save_steps=2),
    "metric_for_best_model": works("leaf_clean_accuracy", "one of those reported, or refused", **EVALUATING),
    "greater_is_better": works(
        True, "as in transformers", metric_for_best_model="leaf_clean_accuracy", **EVALUATING
    ),
    # ---- checkpoints and the Hub ----
    "save_only_model": works(True, "as in transformers"),
    "save_strategy": works("epoch", "as in transformers"),
    "save_steps": works(3, "as in transformers"),
    "save_on_each_node": works(True, "as in transformers"),
    "save_total_limit": works(1, "as in transformers"),
    "enable_jit_checkpoint": works(True, "as in transformers"),
    "push_to_hub": works(True, "uploads the stock checkpoint, side files and card"),
    "hub_token": refused("hf_secret", "use HF_TOKEN"),
    "hub_private_repo": works(True, "as in transformers"),
    "hub_model_id": works("me/mine", "as in transformers"),
    "hub_strategy": works("end", "as in transformers", push_to_hub=True),
    "hub_always_push": works(True, "as in transformers", push_to_hub=True),
    "hub_revision": works("dev", "as in transformers"),
    "ignore_data_skip": works(True, "as in transformers"),
    "restore_callback_states_from_checkpoint": works(True, "as in transformers"),
    "resume_from_checkpoint": works(True, "read by train() where it is given nothing else"),
    # ---- processes, devices, data ----
    "full_determinism": works(True, "as in transformers"),
    "seed": works(1, "of everything"),
    "data_seed": works(1, "of the order of the images"),
    "use_cpu": works(True, "as in transformers"),
    "accelerator_config": works({"even_batches": False}, "as in transformers, but split_batches"),
    "parallelism_config": refused("tensor", "sharding takes apart"),
    "dataloader_drop_last": works(True, "in training; evaluations take every image"),
    "dataloader_num_workers": works(1, "as in transformers"),
    "dataloader_pin_memory": works(False, "as in transformers"),
    "dataloader_persistent_workers": works(True, "as in transformers", dataloader_num_workers=1),
    "dataloader_prefetch_factor": works(2, "as in transformers", dataloader_num_workers=1),
    "dataloader_multiprocessing_context": works("fork", "as in transformers", dataloader_num_workers=1),
    "dataloader_in_order": works(False, "as in transformers"),
    "remove_unused_columns": refused(True, "drops the images"),
    "label_names": refused(["y"], "always called 'labels'"),
    "train_sampling_strategy": works("sequential", "random or sequential; by length is refused"),
    "length_column_name": refused("size", "not grouped by length"),
    "ddp_find_unused_parameters": works(True, "as in transformers"),
    "ddp_bucket_cap_mb": works(10, "as in transformers"),
    "ddp_broadcast_buffers": works(True, "as in transformers"),
    "ddp_static_graph": works(True, "as in transformers"),
    "ddp_backend": refused("gloo", "several processes"),
    "ddp_timeout": works(60, "as in transformers"),
    "fsdp": refused("full_shard", "sharding takes apart"),
    "fsdp_config": refused({"fsdp_version": 2}, "sharding takes apart"),
    "deepspeed": refused({"zero_optimization": {"stage": 2}}, "sharding takes apart"),
    "debug": works("underflow_overflow", "as in transformers; of TPUs is refused"),
    "skip_memory_metrics": works(False, "as in transformers"),
    "do_train": refused(True, "trainer.train"),
    "do_eval": refused(True, "trainer.evaluate"),
    "do_predict": refused(True, "trainer.predict"),
    "local_rank": refused(0, "in the environment"),
}
