"""What is attacked on one set of images: its classifiers, and what decides their answers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from ..classifiers.levels import LevelClassifier
from ..digests import digest_of
from ..modeling import PixelPipeline, RobustDualEncoder
from .depth import TreeDepth, classifiers_and_depth
from .identity import answers, model_facts, set_facts
from .images import Batches
from .plan import AttackPlan, EvaluationSet
from .text_attacks import attacked_prompts, prompt_classifier


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is attacked on one set.

    Attributes:
        data: the images.
        found: the classifiers.
        templates_hash: of the prompts, None for classifiers without any.
        prompted: the leaves' cosine classifier with attacked prompts, where these are measured too.
        text_seconds: that the attack on the prompts took.
        identity: what the classifiers' answers depend on beside weights, see `model_facts`.
        pipeline: of the classifiers, where it depends on the threat space what they do with pixels.
        depth: of the tree, where the model has a calibrated head.
    """

    data: EvaluationSet
    found: Sequence[LevelClassifier]
    templates_hash: str | None = None
    prompted: LevelClassifier | None = None
    text_seconds: float = 0.0
    identity: Mapping = field(default_factory=dict)
    pipeline: PixelPipeline | None = None
    depth: TreeDepth | None = None

    def set_space(self, space: str) -> None:
        """Say in which threat space the next pixels come."""
        if self.pipeline is not None:
            self.pipeline.space = space

    def paired(self, one: LevelClassifier) -> bool:
        """Whether a classifier is also measured with attacked prompts."""
        return self.prompted is not None and (one.level, one.name) == (0, "cosine")


def model_target(
    model: RobustDualEncoder,
    processor,
    data: EvaluationSet,
    plan: AttackPlan,
    template: str | None,
    names: Sequence[str] | None,
) -> Target:
    """The classifiers of a model on one set, with attacked prompts where the plan asks for them."""
    pipeline, tokenizer = PixelPipeline(processor.image_processor), processor.tokenizer
    class_set = data.class_set if template is None else replace(data.class_set, templates=(template,))
    found, depth = classifiers_and_depth(model, pipeline, tokenizer, class_set, data.tree, names)
    leaf = next((one for one in found if (one.level, one.name) == (0, "cosine")), None)
    target = Target(
        data=data,
        found=found,
        templates_hash=class_set.templates_hash,
        identity=model_facts(model, processor, class_set, data.tree),
        pipeline=pipeline,
        depth=depth,
    )
    if plan.text_attack is None or leaf is None:
        return target
    start = time.perf_counter()
    prompts = attacked_prompts(model, tokenizer, class_set, class_set.templates, plan.text_attack)
    attacked = prompt_classifier(model, pipeline, tokenizer, prompts)
    prompted = replace(leaf, classifier=attacked, search=attacked.with_autocast(torch.bfloat16))
    return replace(
        target,
        prompted=prompted,
        text_seconds=time.perf_counter() - start,
        identity=target.identity | {"attacked prompts": digest_of(prompts)},
    )


def target_facts(target: Target, images: Mapping[str, Batches], device: torch.device | str) -> dict:
    """What decides the verdicts on a target; all processes ask together, the first one gets the answer.

    Args:
        images: its batches in each threat space, which are read ahead for it.
    """
    samples, logits = {}, {}
    for space, batches in images.items():
        batches.read_ahead()
        samples[space] = batches.describe()
        target.set_space(space)
        if batches.shards.rank == 0:
            first = next(iter(batches))["pixels"][:1].to(device)
            logits |= answers(target.found, first, space)
    return {**target.identity, **set_facts(target.data, samples, target.found), **logits}
