"""From models and sets of images to robustness records: one per classifier and budget."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from ..adapters.fingerprints import weights_hash
from ..classifiers.levels import LevelClassifier
from ..modeling import PixelPipeline, RobustDualEncoder
from ..modeling.kernels import attack_kernels
from ..naming import level_name, public_name
from .depth import TreeDepth, classifiers_and_depth
from .doubts import checks, per_class
from .flags import pack_flags
from .plan import AttackPlan, EvaluationSet, attack_labels, describe_attacks
from .records import RobustnessRecord, describe_samples
from .runner import Job, Progress, run_jobs
from .text_attacks import attacked_prompts, both, prompt_classifier, text_only
from .verdicts import Outcome


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is attacked on one set.

    Attributes:
        data: the images.
        found: the classifiers.
        templates_hash: of the prompts, None for classifiers without any.
        prompted: the leaves' cosine classifier with attacked prompts, where these are measured too.
        text_seconds: that the attack on the prompts took.
        pipeline: of the classifiers, where it depends on the threat space what they do with pixels.
        depth: of the tree, where the model has a calibrated head.
    """

    data: EvaluationSet
    found: Sequence[LevelClassifier]
    templates_hash: str | None = None
    prompted: LevelClassifier | None = None
    text_seconds: float = 0.0
    pipeline: PixelPipeline | None = None
    depth: TreeDepth | None = None

    def paired(self, one: LevelClassifier) -> bool:
        """Whether a classifier is also measured with attacked prompts."""
        return self.prompted is not None and (one.level, one.name) == (0, "cosine")


def evaluate_model(
    model: RobustDualEncoder,
    processor,
    sets: Iterable[EvaluationSet],
    plan: AttackPlan,
    *,
    model_name: str,
    objective: str = "none",
    template: str | None = None,
    classifiers: Sequence[str] | None = None,
    batch_size: int = 256,
    bf16_search: bool = False,
    seed: int = 0,
    progress: bool = True,
    stage: str = "",
) -> list[RobustnessRecord]:
    """Attack every classifier of a model on every set at every budget.

    Args:
        model, processor: of one checkpoint.
        sets: what to measure; their trees give the levels above the leaves.
        plan: the attacks and their budgets.
        model_name, objective: for the records.
        template: prompt template in place of each class set's own.
        classifiers: names to keep (see `LevelClassifier`); None evaluates the usual ones that the model has.
        batch_size: images a batch.
        bf16_search: attack gradients under bf16 autocast; verdicts stay fp32.
        seed: of random starts.
        progress: draw one bar over everything, with the time left.
        stage: what the bar says of the model, such as "base" or "trained".

    Returns:
        One record per set, level, classifier and budget; with a text attack, for the leaves' cosine
        classifier also one with attacked prompts alone and one per budget with both attacked.

    Raises:
        ValueError: an unknown classifier, a prompt longer than the text encoder's context, labels outside the
            classes, or logits that are NaN.
    """
    targets = [_target(model, processor, data, plan, template, classifiers) for data in sets]
    dtype = torch.bfloat16 if bf16_search else None
    facts = {
        "model": public_name(model_name),
        "objective": objective,
        "model_hash": weights_hash(model),
        "seed": seed,
    }
    with attack_kernels(model, dtype):
        return measure(
            targets,
            plan,
            facts,
            processor=processor,
            device=model.device,
            batch_size=batch_size,
            bf16_search=bf16_search,
            progress=(stage or facts["model"]) if progress else None,
        )


def measure(
    targets: Sequence[Target],
    plan: AttackPlan,
    facts: Mapping,
    *,
    processor=None,
    device: torch.device | str = "cpu",
    batch_size: int = 256,
    bf16_search: bool = False,
    progress: str | None = None,
) -> list[RobustnessRecord]:
    """Records of all targets; the images of a set are decoded once for each threat space.

    Args:
        facts: ``model``, ``objective``, ``model_hash`` and ``seed`` of the records.
        processor: only the threat space ``"model"`` needs it.
        progress: title of the overall bar; None draws none.
    """
    steps = sum(
        len(target.data.rows) * len(plan.budgets) * sum(1 + target.paired(one) for one in target.found)
        for target in targets
    )
    records = []
    with tqdm(total=steps, desc=progress, disable=progress is None, unit="image", smoothing=0.1) as bar:

        def advance(now: Progress) -> None:
            found = f"clean {now.clean:.3f}, robust {now.robust:.3f}"
            left = f"{bar.total - bar.n - now.images:,} images left"
            bar.set_postfix_str(f"{now.job.title}, {now.stage}: {found}, {left}", refresh=False)
            bar.update(now.images)

        for target in targets:
            outcomes, samples = {}, {}
            for space in plan.spaces():
                budgets = [i for i, attacks in enumerate(plan.budgets) if attacks[0].threat.space == space]
                jobs = {
                    key: _job(plan, target, *key, bf16_search=bf16_search) for key in _keys(target, budgets)
                }
                if target.pipeline is not None:
                    target.pipeline.space = space
                images = _Watched(target.data, target.data.loader(processor, space, batch_size))
                found = run_jobs(
                    list(jobs.values()), images, device=device, seed=facts["seed"], advance=advance
                )
                outcomes |= dict(zip(jobs, found))
                samples[space] = images.describe()
            records += _records(plan, target, outcomes, samples, facts, bf16_search)
    return records


def _target(
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
        data=data, found=found, templates_hash=class_set.templates_hash, pipeline=pipeline, depth=depth
    )
    if plan.text_attack is None or leaf is None:
        return target
    start = time.perf_counter()
    prompts = attacked_prompts(model, tokenizer, class_set, class_set.templates, plan.text_attack)
    attacked = prompt_classifier(model, pipeline, tokenizer, prompts)
    prompted = replace(leaf, classifier=attacked, search=attacked.with_autocast(torch.bfloat16))
    return replace(target, prompted=prompted, text_seconds=time.perf_counter() - start)


def _keys(target: Target, budgets: Sequence[int]) -> Iterator[tuple[int, int, bool]]:
    """Budget, classifier and whether its prompts are attacked, of every job."""
    for budget, index in product(budgets, range(len(target.found))):
        yield budget, index, False
        if target.paired(target.found[index]):
            yield budget, index, True


def _job(
    plan: AttackPlan, target: Target, budget: int, index: int, prompted: bool, *, bf16_search: bool
) -> Job:
    one, attacks = target.found[index], plan.budgets[budget]
    title = f"{public_name(target.data.name)}, {level_name(one.level)}, {one.name}, {attacks[0].threat}"
    if prompted:
        one, title = target.prompted, f"{title}, attacked prompts"
    return Job(
        classifier=one.classifier,
        attacks=attacks,
        to_class=one.to_node,
        search=one.search if bf16_search else None,
        title=title,
        probe=None if prompted or target.depth is None else target.depth.probe(one),
    )


class _Watched:
    """The batches of a set; it notes the identity of every image that passes."""

    def __init__(self, data: EvaluationSet, loader: DataLoader):
        self.data, self.loader, self.ids, self.labels = data, loader, [], []

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for batch in self.loader:
            grey_levels = (batch["pixels"] * 255).round().to(torch.uint8)
            for image, label in zip(grey_levels.numpy(), batch["labels"].tolist()):
                digest = hashlib.sha256(image.tobytes()).hexdigest()[:16]
                self.ids.append(f"{self.data.rows[len(self.ids)]}:{label}:{digest}")
                self.labels.append(label)
            yield batch

    def describe(self) -> dict:
        """The record's ``sample_ids``: row, label and a digest of the 8-bit pixels of each image."""
        spread = {"per_class": per_class(self.labels, len(self.data.class_set))}
        if self.data.shared_with_training is not None:
            spread["shared_with_training"] = self.data.shared_with_training
        return describe_samples(self.ids, self.data.how) | spread


def _records(
    plan: AttackPlan, target: Target, outcomes: Mapping, samples: Mapping, facts: Mapping, bf16_search: bool
) -> list[RobustnessRecord]:
    """Records of one set, by budget and classifier."""
    data, records = target.data, []
    for budget, attacks in enumerate(plan.budgets):
        space = attacks[0].threat.space
        common = {
            **facts,
            "dataset": public_name(data.name),
            "split": data.split,
            "class_set": data.class_set.name,
            "tree": data.tree.name if data.tree else None,
            "tree_hash": data.tree.hash if data.tree else None,
            "templates_hash": target.templates_hash,
            "sample_ids": samples[space],
        }
        image = describe_attacks(attacks) | {"search_dtype": "bfloat16" if bf16_search else "float32"}
        labels = attack_labels(attacks)
        for index, one in enumerate(target.found):
            outcome = outcomes[budget, index, False]
            depth = None if target.depth is None else target.depth.facts(one, outcome.notes)
            records.append(_record(one, outcome, common | {"attack": image, "depth": depth}, labels))
            if not target.paired(one):
                continue
            pair = outcomes[budget, index, True]
            if budget == 0:  # without pixels there is no budget
                words = {"attack": plan.describe_text(None, space)}
                alone = text_only(outcome.clean, pair, target.text_seconds)
                records.append(_record(one, alone, common | words, ["text"]))
            joint = {"attack": plan.describe_text(image, space)}
            records.append(_record(one, both(outcome, pair), common | joint, [*labels, "text_first"]))
    return records


def _record(one: LevelClassifier, outcome: Outcome, common: dict, labels: Sequence[str]) -> RobustnessRecord:
    count = len(outcome.clean)
    return RobustnessRecord(
        **common,
        num_classes=int(one.to_node.max()) + 1,
        level=one.level,
        level_name=level_name(one.level),
        classifier=one.name,
        num_samples=count,
        clean_accuracy=int(outcome.clean.sum()) / count,
        robust_accuracy=int(outcome.robust.sum()) / count,
        wall_seconds=round(outcome.seconds, 1),
        cost={name: round(value, 2) for name, value in outcome.cost._asdict().items()},
        flags={"clean": pack_flags(outcome.clean), "robust": pack_flags(outcome.robust)},
        checks=checks(outcome, labels),
    )
