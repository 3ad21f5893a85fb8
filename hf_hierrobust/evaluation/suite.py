"""From a model and a data set to robustness records: one per classifier and budget."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch.utils.data import DataLoader, Subset

from ..adapters.fingerprints import weights_hash
from ..attacks import PGD, Attack, TextAttack
from ..classifiers.levels import LevelClassifier, level_classifiers
from ..data import ClassSet, PixelCollator, PixelDataset, representative_rows
from ..hierarchy import LabelTree
from ..modeling import PixelPipeline, RobustDualEncoder
from ..modeling.kernels import fast_kernels
from ..naming import level_name, public_name
from ..threat import ThreatModel
from .flags import pack_flags
from .records import RobustnessRecord, describe_samples
from .robust import Outcome, attack_classifier
from .text_attacks import attacked_prompts, both, prompt_classifier, text_only


@dataclass(frozen=True, kw_only=True)
class AttackPlan:
    """The attacks of one evaluation; the worst case over them counts.

    Args:
        threats: budgets, each evaluated separately.
        num_steps, restarts: of every PGD run.
        step_size: in pixel scale; None is ``eps / 4``.
        losses: PGD runs, one a loss: ``("ce",)`` is PGD-n, ``("ce", "margin")`` adds CW-PGD.
        text_attack: also attack the class prompts, by themselves and before the pixels; leaf level, cosine.
    """

    threats: tuple[ThreatModel, ...]
    num_steps: int = 20
    restarts: int = 1
    step_size: float | None = None
    losses: tuple[str, ...] = ("ce",)
    text_attack: TextAttack | None = None

    def attacks(self, threat: ThreatModel) -> list[Attack]:
        return [
            PGD(
                threat=threat,
                num_steps=self.num_steps,
                restarts=self.restarts,
                step_size=self.step_size,
                loss=loss,
            )
            for loss in self.losses
        ]

    def describe(self, threat: ThreatModel) -> dict:
        """Constants for the record; several losses are one worst case."""
        constants = self.attacks(threat)[0].describe()
        step = self.step_size if self.step_size is not None else threat.eps / 4
        return constants | {"loss": "+".join(self.losses), "step_size": step}

    def describe_text(self, image: dict | None, space: str) -> dict:
        """Constants of the attack on the prompts: alone, or with the image attack ``image`` after it."""
        text = self.text_attack.describe()
        if image is None:
            return text | {"norm": "linf", "eps": 0.0, "space": space}
        return image | {"name": f"{text['name']}+{image['name']}", "text_attack": text}


@dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """Labelled images with their classes.

    Args:
        name, split: for the record.
        dataset: images and labels.
        class_set: classes; ``label_map`` (C,) leads from dataset labels to them, by default by name.
        tree: class tree, or None for leaves only.
        num_samples: how many images, chosen by `representative_rows`; None takes all.
    """

    name: str
    dataset: PixelDataset
    class_set: ClassSet
    split: str = "test"
    label_map: torch.Tensor | None = None
    tree: LabelTree | None = None
    num_samples: int | None = None

    def loader(self, processor, space: str, batch_size: int) -> DataLoader:
        """Batches of the chosen images, in the order of their rows."""
        rows, _ = self.rows()
        label_map = self.class_set.label_map(self.dataset) if self.label_map is None else self.label_map
        collator = PixelCollator(processor.image_processor, space, label_map)
        return DataLoader(Subset(self.dataset, rows), batch_size=batch_size, collate_fn=collator)

    def rows(self) -> tuple[list[int], str]:
        """Rows to evaluate and how they were chosen.

        Raises:
            ValueError: the images have no labels.
        """
        if not getattr(self.dataset, "labelled", True):
            raise ValueError(f"the images of {self.name!r} have no labels to measure accuracy by")
        count = len(self.dataset) if self.num_samples is None else self.num_samples
        return representative_rows(self.dataset.labels, count)


def sample_ids(data: EvaluationSet, loader: DataLoader) -> dict:
    """Identity of the images that a loader yields: row, label and a digest of the 8-bit pixels of each."""
    rows, how = data.rows()
    found = []
    for batch in loader:
        grey_levels = (batch["pixels"] * 255).round().to(torch.uint8)
        for image, label in zip(grey_levels.numpy(), batch["labels"].tolist()):
            digest = hashlib.sha256(image.tobytes()).hexdigest()[:16]
            found.append(f"{rows[len(found)]}:{label}:{digest}")
    return describe_samples(found, how)


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
) -> list[RobustnessRecord]:
    """Attack every classifier of a model on every set at every budget.

    Args:
        model, processor: of one checkpoint, the model in evaluation mode.
        sets: what to measure; their trees give the levels above the leaves.
        plan: the attacks and their budgets.
        model_name, objective: for the records.
        template: prompt template in place of each class set's own.
        classifiers: names to keep (see `LevelClassifier`); None evaluates the usual ones that the model has.
        batch_size: images a batch.
        bf16_search: attack gradients under bf16 autocast; verdicts stay fp32.
        seed: of random starts.

    Returns:
        One record per set, level, classifier and budget; with a text attack, for the leaves' cosine
        classifier also one with attacked prompts alone and one per budget with both attacked.

    Raises:
        ValueError: an unknown classifier, a prompt longer than the text encoder's context, labels outside the
            classes, or a model whose logits are NaN.
    """
    pipeline, records = PixelPipeline(processor.image_processor), []
    dtype, model_hash = torch.bfloat16 if bf16_search else None, weights_hash(model)
    for data in sets:
        found = level_classifiers(
            model,
            pipeline,
            processor.tokenizer,
            data.class_set,
            data.tree,
            template=template,
            names=classifiers,
        )
        class_set = data.class_set if template is None else replace(data.class_set, templates=(template,))
        prompts = None
        if plan.text_attack is not None:
            start = time.perf_counter()
            words = attacked_prompts(
                model, processor.tokenizer, class_set, class_set.templates, plan.text_attack
            )
            text_seconds = time.perf_counter() - start
            prompts = prompt_classifier(model, pipeline, processor.tokenizer, words)
        identities: dict[str, dict] = {}  # of the images in each threat space, which budgets share
        for threat in plan.threats:
            loader = data.loader(processor, threat.space, batch_size)
            if threat.space not in identities:
                identities[threat.space] = sample_ids(data, loader)
            common = {
                "model": public_name(model_name),
                "objective": objective,
                "dataset": public_name(data.name),
                "split": data.split,
                "class_set": data.class_set.name,
                "tree": data.tree.name if data.tree else None,
                "tree_hash": data.tree.hash if data.tree else None,
                "templates_hash": class_set.templates_hash,
                "model_hash": model_hash,
                "seed": seed,
                "sample_ids": identities[threat.space],
            }
            constants = plan.describe(threat) | {"search_dtype": "bfloat16" if bf16_search else "float32"}
            run = partial(
                _attack, model=model, loader=loader, attacks=plan.attacks(threat), dtype=dtype, seed=seed
            )
            desc = f"{data.name} {threat}" if progress else None
            for one in found:
                outcome = run(one, desc=desc)
                records.append(_record(one, outcome, common | {"attack": constants}, plan.losses))
                if prompts is None or (one.level, one.name) != (0, "cosine"):
                    continue
                search = prompts.with_autocast(torch.bfloat16)
                pair = run(replace(one, classifier=prompts, search=search), desc=desc)
                if threat is plan.threats[0]:  # without pixels there is no budget
                    words = {"attack": plan.describe_text(None, threat.space)}
                    records.append(
                        _record(one, text_only(outcome.clean, pair, text_seconds), common | words, ("text",))
                    )
                joint = {"attack": plan.describe_text(constants, threat.space)}
                losses = (*plan.losses, "text_first")
                records.append(_record(one, both(outcome, pair), common | joint, losses))
    return records


def with_base(
    records: Iterable[RobustnessRecord], base: Iterable[RobustnessRecord]
) -> list[RobustnessRecord]:
    """Records with the undefended base's accuracies on the same images under the same attack beside them.

    A hyperbolic classifier, which the base does not have, is set beside the base's cosine one.
    """
    table = {_key(r): r for r in base}
    merged = []
    for record in records:
        other = table.get(_key(record)) or table.get(
            _key(record, record.classifier.removesuffix("hyperbolic"))
        )
        if other is not None:
            facts = {
                "model": other.model,
                "clean_accuracy": other.clean_accuracy,
                "robust_accuracy": other.robust_accuracy,
            }
            record = replace(record, base=facts)
        merged.append(record)
    return merged


def _key(record: RobustnessRecord, classifier: str | None = None) -> tuple:
    """All that two measurements must share to be compared."""
    name = record.classifier if classifier is None else (classifier.removesuffix("-") or "cosine")
    images = (record.dataset, record.split, record.sample_ids["sha256"])
    classes = (record.class_set, record.tree_hash, record.templates_hash, record.level)
    return (*images, *classes, name, json.dumps(record.attack, sort_keys=True))


def _attack(
    one: LevelClassifier, model, loader: DataLoader, attacks, dtype: torch.dtype | None, seed: int, desc
) -> Outcome:
    with fast_kernels(model, dtype):
        return attack_classifier(
            one.classifier,
            loader,
            attacks,
            to_class=one.to_node,
            search=None if dtype is None else one.search,
            device=model.device,
            seed=seed,
            desc=desc and f"{desc} level {one.level} {one.name}",
        )


def _record(one: LevelClassifier, outcome: Outcome, common: dict, losses: Sequence[str]) -> RobustnessRecord:
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
        flags={"clean": pack_flags(outcome.clean), "robust": pack_flags(outcome.robust)},
        # A later attack that breaks many survivors of an earlier one says that the earlier one was weak.
        checks={"zero_gradient_fraction": outcome.zero_gradient}
        | {f"robust_after_{loss}": round(share, 6) for loss, share in zip(losses, outcome.after)},
    )
