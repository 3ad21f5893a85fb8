"""Measuring a network that is no dual encoder: any callable from pixels to logits."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import ProcessorMixin

from ..classifiers import Classifier, as_classifier, frozen, modules_behind, network_classifiers
from ..classifiers.behind import tensors_behind, weights_behind
from ..data import ClassSet, PixelCollator, as_images
from ..data.class_names import names_of
from ..evaluation import AttackPlan, RobustnessRecord, Target, measure
from ..evaluation.identity import unchanged
from ..hierarchy import TreeSpec, load_forest
from ..naming import public_name
from ..threat import Space
from .opened import OpenedData


def evaluate_network(
    model: Callable[[Tensor], Tensor],
    data: OpenedData,
    plan: AttackPlan,
    *,
    tree: TreeSpec | None,
    class_set: str | os.PathLike | ClassSet | None,
    num_samples: int | None,
    processor: ProcessorMixin | None,
    name: str | None,
    device: torch.device | str | None,
    seed: int,
    progress: bool,
    **options,
) -> list[RobustnessRecord]:
    """Records of a network that is not a dual encoder: its own classes, rolled up over the tree."""
    for module in modules_behind(model) if device is not None else ():
        module.to(device)
    device = next((one.device for _, one in tensors_behind(model) if isinstance(one, Tensor)), device)
    classifier = as_classifier(model)
    if processor is None and "model" in plan.spaces():
        raise ValueError("space='model' resizes as a processor says: give processor, or space='native'")
    if processor is not None and "model" not in plan.spaces():
        raise ValueError("processor has no effect: the images are attacked as they are; give space='model'")
    before = weights_behind(classifier)
    width = _width(classifier, data.images, processor, plan.spaces()[0], device or "cpu")
    if class_set is None and tree is None and names_of(data.images, name=data.name) is None:
        classes = ClassSet.from_names([f"class {index}" for index in range(width)], name=data.name)
    else:
        classes = data.classes(class_set)
    if width != len(classes):
        raise ValueError(
            f"the network gives {width} logits, but {classes.name!r} has {len(classes)} classes: give the "
            "class_set whose order its outputs have"
        )
    forest = None if tree is None else load_forest(tree, classes.class_names, wnids=classes.wnids)
    found = data.evaluation_set(classes, forest, num_samples)
    # What a call changes, such as a cache, is no weight.
    weights = unchanged({"weights": before}, {"weights": weights_behind(classifier)})["weights"]
    facts = {
        "model": public_name(name or _name(model)),
        "objective": "none",
        "model_hash": weights if before else None,
        "seed": seed,
    }
    return measure(
        [Target(data=found, found=network_classifiers(classifier, len(classes), found.tree))],
        plan,
        facts,
        processor=processor,
        device=device or "cpu",
        progress=facts["model"] if progress else None,
        **options,
    )


def _name(model) -> str:
    """Of a network or function, also behind a `Classifier` or `functools.partial`."""
    while isinstance(model, (Classifier, functools.partial)):
        model = model.net if isinstance(model, Classifier) else model.func
    name = getattr(model, "name_or_path", "") or getattr(model, "__name__", type(model).__name__)
    return name.strip("<>")


def _width(classifier, dataset, processor, space: Space, device) -> int:
    """Number of logits, asked with the first image."""
    collator = PixelCollator(getattr(processor, "image_processor", processor), space)
    pixels = collator([as_images(dataset, labelled=False)[0]])["pixels"].to(device)
    with frozen(classifier), torch.no_grad():
        return classifier(pixels).shape[1]
