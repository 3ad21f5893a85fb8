"""What is attacked on one set of images: its classifiers, and what decides their answers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from ..classifiers.counterattack import Counterattacked
from ..classifiers.levels import LevelClassifier
from ..digests import digest_of
from ..modeling import PixelPipeline, RobustDualEncoder
from .depth import TreeDepth, classifiers_and_depth
from .identity import answers, computed_with, model_facts, set_facts, unchanged
from .images import Batches
from .plan import AttackPlan
from .sets import EvaluationSet
from .text_attacks import attacked_text, prompt_classifier


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is attacked on one set.

    Attributes:
        data: the images.
        found: the classifiers.
        templates_hash: of the prompts, None for classifiers without any.
        prompted: the leaves' cosine classifier with attacked prompts, where these are measured too.
        text: (K, D) embeddings of those prompts, in the order of its logits.
        text_seconds: that the attack on the prompts took.
        defended: the classifiers behind a test-time defence, by their place among ``found``.
        identity: what the classifiers' answers depend on beside weights, see `model_facts`.
        pipeline: of the classifiers, where it depends on the threat space what they do with pixels.
        depth: of the tree, where the model has a calibrated head.
        multiplier: of the cosine, where there is one.
    """

    data: EvaluationSet
    found: Sequence[LevelClassifier]
    templates_hash: str | None = None
    prompted: LevelClassifier | None = None
    text: torch.Tensor | None = None
    text_seconds: float = 0.0
    defended: Mapping[int, Counterattacked] = field(default_factory=dict)
    identity: Mapping = field(default_factory=dict)
    pipeline: PixelPipeline | None = None
    depth: TreeDepth | None = None
    multiplier: float | None = None

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
    seed: int,
) -> Target:
    """The classifiers of a model on one set, with attacked prompts where the plan asks for them.

    Args:
        seed: of the attack on the prompts.
    """
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
        multiplier=float(model.logit_multiplier.detach()),
    )
    if plan.defence is not None:
        defended = {place: plan.defence.around(one.classifier) for place, one in enumerate(found)}
        target = replace(target, defended=defended)
    if plan.text_attack is None:
        return target
    if leaf is None:
        raise ValueError(
            f"text_attack attacks the prompts of the classifier 'cosine', which classifiers={list(names)} "
            "leaves out: add it"
        )
    start = time.perf_counter()
    text = attacked_text(model, tokenizer, class_set, plan.text_attack, seed)
    attacked, to_node = prompt_classifier(model, pipeline, tokenizer, class_set, text)
    search = attacked.with_autocast(torch.bfloat16)
    # Of twins, whose prompts were equal before the attack and so are after it, either one stands for both.
    rows = torch.zeros(int(to_node.max()) + 1, dtype=torch.long)
    rows = rows.scatter(0, to_node, torch.arange(len(to_node)))
    return replace(
        target,
        prompted=replace(leaf, classifier=attacked, search=search, to_node=to_node),
        text=text.features[rows.to(text.features.device)],
        text_seconds=time.perf_counter() - start,
        identity=target.identity | {"attacked prompts": digest_of(text.identity)},
    )


def target_facts(target: Target, images: Mapping[str, Batches], device: torch.device | str) -> dict:
    """What decides the verdicts on a target; all processes ask together, the first one gets the answer.

    Args:
        images: its batches in each threat space, which are read ahead for it.
    """
    samples, logits = {}, {}
    first = next(iter(images.values())).shards.rank == 0
    before = computed_with(target.found) if first else {}
    for space, batches in images.items():
        batches.read_ahead()
        samples[space] = batches.describe()
        target.set_space(space)
        if first:
            image = next(iter(batches))["pixels"][:1].to(device)
            logits |= answers(target.found, image, space)
    own = unchanged(before, computed_with(target.found)) if first else {}
    return {**target.identity, **set_facts(target.data, samples, target.found), **own, **logits}
