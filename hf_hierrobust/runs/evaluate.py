"""Measuring a model: `evaluate` for any model and data, and the evaluation stage of a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor, nn
from transformers import ProcessorMixin, logging

from ..attacks import Attack, EmbeddingPGD, TextAttack
from ..classifiers import TTC
from ..data import (
    ClassSet,
    as_images,
    threat_space_for,
)
from ..evaluation import (
    AttackPlan,
    RobustnessRecord,
    Shards,
    evaluate_model,
)
from ..evaluation.retrieval_records import RetrievalRecord
from ..hierarchy import TreeSpec
from ..modeling import RobustDualEncoder, as_robust_model
from ..modeling.sources import MODEL_TYPES
from ..options import check_given, check_whole, read_switch
from ..precision import resolve_bf16
from ..threat import Norm, Space
from ..training.intake import model_forest, processor_for
from .arguments import RunArguments
from .drift import with_drift
from .network import evaluate_network
from .opened import OpenedData
from .plans import besides, evaluation_plan
from .retrieval import evaluate_retrieval, retrieval_options
from .run import Run

logger = logging.get_logger(__name__)
STAGES = ("base", "trained")
"""What a run evaluates, and folders of its ``state_dir``."""


def evaluate(
    model: str | os.PathLike | nn.Module | Callable[[Tensor], Tensor],
    dataset: Any,
    *,
    attack: str | Attack | Sequence[str | Attack] = "pgd",
    eps: float | str | Sequence[float | str] | None = None,
    norm: Norm | None = None,
    space: Space | None = None,
    tree: TreeSpec | None = None,
    class_set: str | os.PathLike | ClassSet | None = None,
    template: str | None = None,
    classifiers: str | Sequence[str] | None = None,
    transfer: bool = False,
    targets: str | Sequence[str] = (),
    text_attack: str | TextAttack | EmbeddingPGD | None = None,
    text_orders: str | Sequence[str] | None = None,
    defence: str | TTC | None = None,
    eot: int = 10,
    checks: bool = False,
    num_samples: int | None = None,
    processor: ProcessorMixin | str | os.PathLike | None = None,
    split: str | None = None,
    dataset_name: str | None = None,
    model_name: str | None = None,
    batch_size: int = 250,
    bf16_search: bool | str = "auto",
    device: torch.device | str | None = None,
    seed: int = 0,
    progress: bool = True,
    state_dir: str | os.PathLike | None = None,
    share: bool = True,
    drift_base: str | os.PathLike | nn.Module | None = None,
    drift_samples: int = RunArguments.drift_samples,
    retrieval: bool = False,
    caption_column: str | None = None,
    **attack_options,
) -> list[RobustnessRecord] | list[RetrievalRecord]:
    """Clean and robust accuracy of a model on a data set, a record for each level, classifier and budget.

        records = evaluate("you/robust-clip", ds, attack="pgd", eps="4/255", tree="cifar100")
        print(records_table(records))

    Args:
        model: folder or Hub id of a CLIP or SigLIP checkpoint, a stock `CLIPModel` or `SiglipModel`, one of
            ours, or any other network or callable from pixels (B, 3, H, W) in [0, 1] to logits (B, K) over
            the K classes of the data (see `Classifier` for one that wants normalised pixels).
        dataset: whatever `as_images` takes, or what `load_images` opens: a path or a Hub id.
        attack: name, `Attack`, or a list of them, of which the worst case counts. ``"pgd"`` is PGD on the
            cross-entropy, then on the margin of what still stands, 20 steps of eps/4 each.
        eps: one budget or several, by default 1/255 for named attacks; it replaces an instance's own.
        norm, space: likewise, by default ``"linf"`` and, for a dual encoder, ``"native"`` where all images
            have one size and else ``"model"``.
        tree: class tree (see `load_forest`), whose superclasses are measured too.
        class_set: the classes, by default the built-in set that the tree is named after, else the data set's
            own names.
        template: prompt template, by default the one the model was trained with, else the class set's own.
        classifiers: of those of `LevelClassifier`; by default the usual ones. Not for other networks, which
            have one, rolled up to the superclasses.
        transfer: also judge what is crafted at each level of the tree at every other level.
        targets: also aim at wrong classes ``"within"`` the superclass one level up, or ``"outside"`` of it.
        text_attack: also attack the class prompts: ``"bert"``, ``"gradient"``, ``"synonym"``,
            ``"embedding"`` or an instance; for the leaves by cosine.
        text_orders: of prompts and pixels: ``"text_first"``, ``"independent"`` and ``"joint"``.
        defence: also measure this test-time defence, ``"ttc"`` or an instance, attacked blindly and through
            it.
        eot: draws that the attack through the defence averages over.
        checks: look for masked gradients by further attacks on 64 of the images, for each classifier and
            budget: about 1,000 forwards for each of those images that stands.
        num_samples: how many images, stratified by class; None takes all.
        processor: or its folder or Hub id; by default the one stored with the model.
        split: of a path or Hub id, by default ``"test"`` or the only one; of other data what the records call
            it.
        dataset_name, model_name: what the records call them.
        bf16_search: search attacks under bf16 autocast; verdicts stay fp32. ``"auto"``: for a dual encoder
            where the machine has bf16 instructions, for other networks never.
        device: by default where the model is; a checkpoint goes to the accelerator if there is one.
        seed: of random starts.
        progress: draw one bar over everything, with the time left.
        state_dir: folder that keeps the verdicts of each batch. Killed at any moment, the same call goes on
            from them and ends with the same records; other weights, images, attacks or seeds are refused.
        share: share the batches out among the processes of torchrun or ``accelerate launch``, which must all
            call this and all get the same records; False is for a call in one of them.
        drift_base: the checkpoint or model that a dual encoder was trained from; the leaves' records by
            cosine then say how far its patch tokens are from the base's, on ``drift_samples`` images.
        retrieval: measure image-text retrieval instead, on images with captions in ``caption_column`` and no
            labels: see `evaluate_retrieval` for what it takes and the records that it returns.
        attack_options: of named attacks, such as ``num_steps=50``.

    Raises:
        TypeError, ValueError: an argument that is unknown or does not fit the others, with the reason.
        NanError: NaN logits on any of the images.
        StateError: ``state_dir`` holds the verdicts of another evaluation; it says what differs.
    """
    check_whole(batch_size=batch_size, seed=seed)
    check_given(num_samples=num_samples)
    for name, value in {"progress": progress, "share": share, "retrieval": retrieval}.items():
        if not isinstance(value, bool):
            raise ValueError(f"{name}={value!r} must be True or False")
    check_device(device)
    if retrieval:
        return evaluate_retrieval(model, dataset, **retrieval_options(evaluate, locals()))
    if caption_column is not None:
        raise ValueError(f"caption_column={caption_column!r} has no effect without retrieval=True")
    if isinstance(classifiers, str):
        classifiers = [name.strip() for name in classifiers.split(",")]
    _check_drift(drift_base, drift_samples, classifiers)
    wanted = besides(
        transfer=transfer,
        targets=targets,
        defence=defence,
        eot=eot,
        checks=checks,
        text_attack=text_attack,
        text_orders=text_orders,
    )
    plan = AttackPlan.of(attack, eps, norm=norm, space=space, besides=wanted, **attack_options)
    data = OpenedData.opened(dataset, split, dataset_name)
    if space is None and _is_dual_encoder(model) and not _holds_instance(attack):
        images = as_images(data.images, labelled=False, name=data.name)
        space, reason = threat_space_for(images, argument="space")
        if space == "model":
            logger.warning(reason)
        plan = AttackPlan.of(attack, eps, norm=norm, space=space, besides=wanted, **attack_options)
    options = {
        "batch_size": batch_size,
        "bf16_search": read_switch(bf16_search, "bf16_search") is True,
        "state_dir": state_dir,
        "shards": joined_shards() if share else None,
        "seed": seed,
        "progress": progress,
    }
    if not _is_dual_encoder(model):
        unused = {"template": template, "classifiers": classifiers, "drift_base": drift_base}
        unused |= {"text_attack": text_attack, "defence": defence}
        if given := [name for name, value in unused.items() if value is not None]:
            raise ValueError(f"{given[0]} has no effect on a {type(model).__name__}: it has no text side")
        return evaluate_network(
            model,
            data,
            plan,
            tree=tree,
            class_set=class_set,
            num_samples=num_samples,
            processor=processor,
            name=model_name,
            device=device,
            **options,
        )
    loads = isinstance(model, (str, os.PathLike))
    path = model if loads else model.name_or_path
    model = as_robust_model(model)
    processor = processor_for(processor, model)
    if device is None and loads and torch.accelerator.is_available():
        device = torch.accelerator.current_accelerator()
    model = model if device is None else model.to(device)
    options["bf16_search"] = resolve_bf16(bf16_search, "bf16_search", model.device.type)
    facts = getattr(model.config, "hier_robust", None) or {}
    template = template or facts.get("template")
    classes = data.classes(class_set, tree)
    forest = None
    if tree is not None:
        forest = model_forest(tree, classes, model, processor.tokenizer, template or classes.templates[0])
    found = data.evaluation_set(classes, forest, num_samples)
    records = evaluate_model(
        model,
        processor,
        [found],
        plan,
        model_name=model_name or str(path) or type(model).__name__,
        objective=facts.get("objective", "none"),
        template=template,
        classifiers=classifiers,
        strict=True,
        **options,
    )
    if drift_base is None:
        return records
    base = as_robust_model(drift_base)
    return with_drift(records, model, base, processor, found, plan, samples=drift_samples, seed=seed)


def evaluate_run(
    run: Run,
    model: RobustDualEncoder,
    model_name: str,
    objective: str,
    *,
    state: str | os.PathLike | None = None,
    shards: Shards | None = None,
    strict: bool = False,
) -> list[RobustnessRecord]:
    """Records of a model on all evaluation sets of a run.

    Args:
        state: where the verdicts so far are kept, by default ``base`` or ``trained`` in the run's state_dir.
        shards: the processes, if all of them call this.
        strict: see `evaluate_model`.
    """
    model.to(run.training_args.device).eval()
    stage = STAGES[objective != "none"]
    if state is None and run.args.state_dir is not None:
        state = Path(run.args.state_dir) / stage
    return evaluate_model(
        model,
        run.processor,
        run.eval_sets,
        evaluation_plan(run.args, run.training_args.threat),
        model_name=model_name,
        objective=objective,
        template=run.args.prompt_template(run.training_args.template),
        classifiers=run.args.classifiers,
        batch_size=run.args.eval_batch,
        bf16_search=run.args.searches_in_bf16,
        seed=run.training_args.seed,
        progress=not run.training_args.disable_tqdm,
        stage=stage,
        state_dir=state,
        shards=shards,
        strict=strict,
    )


def check_device(device: torch.device | str | None) -> None:
    """A device is there and can hold something.

    Raises:
        ValueError: it cannot.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        why = str(error).splitlines()[0]
        raise ValueError(f"device={device!r} cannot be used here: {why}") from error


def joined_shards() -> Shards:
    """The processes that a launcher started with this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.distributed.is_initialized():
        PartialState()
    return Shards.joined()


def _check_drift(base, samples: int, classifiers: Sequence[str] | None) -> None:
    """Before anything is measured: what drift needs, and that it is wanted."""
    if base is None:
        if samples != RunArguments.drift_samples:
            raise ValueError(f"drift_samples={samples!r} has no effect without drift_base: give it")
        return
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise ValueError(f"drift_samples={samples!r} must be a number of images, at least 1")
    if classifiers and "cosine" not in classifiers:
        raise ValueError(
            "drift_base has no effect without the classifier 'cosine', whose records have it: add it"
        )


def _holds_instance(attack) -> bool:
    parts = attack if isinstance(attack, (list, tuple)) else [attack]
    return any(isinstance(part, Attack) for part in parts)


def _is_dual_encoder(model) -> bool:
    if isinstance(model, (str, os.PathLike)):
        return True
    kind = getattr(getattr(model, "config", None), "model_type", None)
    return kind in MODEL_TYPES and hasattr(model, "get_text_features")
