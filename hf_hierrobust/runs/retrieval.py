"""Image-text retrieval of a dual encoder: clean, with attacked pixels, captions, and both."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from inspect import signature
from typing import Any

import torch
from transformers import logging

from ..adapters.fingerprints import weights_hash
from ..attacks import PGD, EmbeddingPGD, TextAttack
from ..data import threat_space_for
from ..data.captions import CaptionedImages, captioned_images
from ..evaluation.records import describe_samples
from ..evaluation.retrieval_measure import ImageSide, measure_retrieval
from ..evaluation.retrieval_records import RetrievalRecord
from ..modeling import TextEncoder, as_robust_model
from ..naming import public_name, source_name
from ..options import check_given, check_whole
from ..threat import Norm, Space
from ..training import RobustTrainingArguments
from ..training.intake import processor_for
from .arguments import RunArguments
from .plans import besides

logger = logging.get_logger(__name__)

_UNUSED = (
    *("class_set", "label_column", "zero_shot", "transfer", "targets", "defence", "checks", "state_dir"),
    *("eval_attack", "eval_attack_args", "eval_restarts", "eval_text_orders", "eval_classifiers"),
    *("eval_template", "drift_base", "bf16_search", "defence_args", "eot", "figures"),
)
"""Options of a run that decide nothing here."""


def evaluate_retrieval(
    model: Any,
    dataset: Any,
    *,
    eps: float | str | Sequence[float | str] | None = None,
    norm: Norm | None = None,
    space: Space | None = None,
    num_steps: int = 20,
    step_size: float | str | None = None,
    text_attack: str | TextAttack | EmbeddingPGD = "gradient",
    text_attack_args: dict | str | None = None,
    caption_column: str | None = None,
    num_samples: int | None = None,
    processor: Any = None,
    split: str | None = None,
    dataset_name: str | None = None,
    model_name: str | None = None,
    batch_size: int = 250,
    device: torch.device | str | None = None,
    seed: int = 0,
) -> list[RetrievalRecord]:
    """R@1, 5 and 10 both ways: clean, and with attacked captions, attacked pixels, and both.

    Captions are attacked first, each away from its images; for the joint attack pixels are then attacked
    against the attacked captions. Arguments as of `evaluate`, which passes them on; see there for errors.

    Args:
        dataset: rows of an image and a caption, or a list of captions; see `captioned_images`.
        num_steps, step_size: of PGD on the pixels, by default 20 steps of eps/4.
        num_samples: the first so many images.
    """
    check_whole(num_steps=num_steps, batch_size=batch_size, seed=seed)
    check_given(num_samples=num_samples)
    text_attack = besides(text_attack=text_attack, text_attack_args=text_attack_args)["text_attack"]
    attacks = _attacks(eps, norm=norm or "linf", num_steps=num_steps, step_size=step_size)
    path = model if isinstance(model, (str, os.PathLike)) else getattr(model, "name_or_path", "")
    data = dataset
    if not isinstance(dataset, CaptionedImages):
        data = captioned_images(
            dataset,
            split=split or str(getattr(dataset, "split", None) or "test"),
            caption_column=caption_column,
            name=_name(dataset, dataset_name),
        )
    data = data.select(num_samples)
    if len(data.captions) < 2:
        raise ValueError(f"{data.name} has {len(data.captions)} image: retrieval chooses among several")
    if space is None:
        space, reason = threat_space_for(data.images, argument="space")
        if space == "model":
            logger.warning(reason)
    model = as_robust_model(model)
    processor = processor_for(processor, model)
    if device is None and torch.accelerator.is_available() and isinstance(path, str):
        device = torch.accelerator.current_accelerator()
    model = model if device is None else model.to(device)
    images = ImageSide(model, processor, data, space, batch_size)
    common = {
        "model": public_name(model_name or str(path) or type(model).__name__),
        "objective": (getattr(model.config, "hier_robust", None) or {}).get("objective", "none"),
        "dataset": public_name(dataset_name or data.name),
        "split": data.split,
        "model_hash": weights_hash(model),
        "seed": seed,
        "sample_ids": describe_samples(range(len(data.captions)), f"the first {len(data.captions)} rows")
        | {"captions_sha256": data.captions_hash()},
    }
    return measure_retrieval(
        images,
        TextEncoder(model, processor.tokenizer),
        text_attack,
        [replace(attack, space=space) for attack in attacks],
        common,
    )


def _attacks(eps: float | str | Sequence[float | str] | None, **constants) -> list[PGD]:
    """The attack on the pixels at each budget, its options checked."""
    budgets = [eps] if isinstance(eps, (str, float, int)) or eps is None else list(eps)
    budgets = [part.strip() for one in budgets for part in str("1/255" if one is None else one).split(",")]
    attacks = [PGD(eps=budget, **constants) for budget in budgets]
    if not attacks:
        raise ValueError("eps is empty: give at least one budget")
    for place, attack in enumerate(attacks):
        if attack in attacks[:place]:
            raise ValueError(f"the budget {attack.threat} is there twice: leave one of them out")
    return attacks


def retrieval_options(evaluate: Callable, given: Mapping[str, Any]) -> dict[str, Any]:
    """Of what `evaluate` was given, the options of `evaluate_retrieval`.

    Raises:
        ValueError: an argument that has no effect on retrieval.
    """
    taken = set(signature(evaluate_retrieval).parameters) - {"model", "dataset"}
    free = {"model", "dataset", "attack_options", "retrieval", "progress", "share"}
    _refuse_processes(given["share"])
    for name, parameter in signature(evaluate).parameters.items():
        if name not in taken | free and given[name] is not False and given[name] != parameter.default:
            raise ValueError(
                f"{name}={given[name]!r} has no effect on retrieval, whose pixels PGD attacks on the margin "
                "of the captions: leave it out"
            )
    if wrong := sorted(set(given["attack_options"]) - {"num_steps", "step_size", "text_attack_args"}):
        raise ValueError(f"{wrong[0]} is no option of retrieval's attack: it takes num_steps and step_size")
    options = {name: given[name] for name in taken & set(given)} | given["attack_options"]
    return options | {"text_attack": given["text_attack"] or "gradient"}


def retrieval_run(args: RunArguments, training_args: RobustTrainingArguments) -> list[RetrievalRecord]:
    """Retrieval of a run's checkpoint on its evaluation data, for the command line.

    Raises:
        ValueError: an option that has no effect on it.
    """
    _refuse_processes()
    for name in _UNUSED:
        value = getattr(args, name)
        if value != next(f.default for f in fields(args) if f.name == name):
            raise ValueError(f"{name}={value!r} has no effect beside retrieval: leave it out")
    for name in ("tree", "template"):
        value = getattr(training_args, name)
        if value != next(f.default for f in fields(training_args) if f.name == name):
            raise ValueError(f"{name}={value!r} has no effect beside retrieval: leave it out")
    data = captioned_images(
        args.eval_source,
        split=args.eval_split,
        config=args.dataset_config,
        image_column=args.image_column,
        caption_column=args.caption_column,
        name=args.eval_name,
    )
    threat = training_args.threat
    return evaluate_retrieval(
        args.model_name_or_path,
        data,
        eps=args.eval_eps or threat.eps,
        norm=threat.norm,
        space=None if training_args.threat_space == "auto" else threat.space,
        num_steps=args.eval_num_steps or 20,
        step_size=args.eval_step_size,
        text_attack=args.eval_text_attack or "gradient",
        text_attack_args=args.eval_text_attack_args,
        num_samples=args.eval_samples,
        batch_size=args.eval_batch,
        device=training_args.device,
        seed=training_args.seed,
    )


def _refuse_processes(share: bool = True) -> None:
    """Retrieval is not shared out: every process would measure all of it."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if share and count > 1:
        raise ValueError(f"retrieval runs in one process, not in {count}: start it without a launcher")


def _name(dataset: Any, given: str | None) -> str:
    if given is not None:
        return given
    if isinstance(dataset, (str, os.PathLike)):
        return source_name(os.fspath(dataset))
    return getattr(getattr(dataset, "info", None), "dataset_name", None) or "dataset"
