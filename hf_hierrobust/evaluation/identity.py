"""What decides the verdicts of an evaluation, as facts that a later start compares by hash."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import isfinite

import torch
from torch import Tensor

from ..classifiers import frozen
from ..classifiers.behind import code_digest, constants_behind, weights_behind
from ..classifiers.levels import LevelClassifier, level_prompts
from ..data import ClassSet
from ..digests import digest_of
from ..hierarchy import LabelTree
from ..modeling import RobustDualEncoder
from ..modeling.dual_encoder import CONFIG_KEY
from .plan import AttackPlan, attack_labels
from .records import environment_versions
from .sets import EvaluationSet
from .state import ANSWERS


def plan_facts(plan: AttackPlan) -> dict:
    """The constants of every attack, each by its own name."""
    facts = {}
    for number, attacks in enumerate(plan.budgets, start=1):
        facts[f"budget {number}"] = f"{attacks[0].threat}, {attacks[0].threat.space}"
        facts[f"attacks of budget {number}"] = attack_labels(attacks)
        for label, attack in zip(attack_labels(attacks), attacks):
            code = {"code": code_digest(attack)}
            for name, value in (attack.describe() | code).items():
                facts[f"{name} of {label} at budget {number}"] = value
    if plan.text_attack is not None:
        facts["text attack"] = plan.text_attack.describe()
        facts["text orders"] = list(plan.text_orders)
    facts |= {"transfer": plan.transfer, "targets": list(plan.targets)}
    facts["defence"] = None if plan.defence is None else plan.defence.describe() | {"eot": plan.eot}
    return facts


def run_facts(seed: int, batch_size: int, device: torch.device | str, bf16_search: bool) -> dict:
    """What a seed means: which random numbers each batch gets, and in what precision they are used."""
    return {
        "seed": seed,
        "batch_size": batch_size,
        "search precision": "bfloat16" if bf16_search else "float32",
        "device": torch.device(device).type,
        **{f"version of {name}": version for name, version in environment_versions().items()},
    }


def model_facts(
    model: RobustDualEncoder,
    processor,
    class_set: ClassSet,
    tree: LabelTree | None,
) -> dict:
    """What a dual encoder's answers depend on beside its weights."""
    # Of what a training notes in the config these constants of the head decide something; a saved model has
    # more of the rest than the same one in memory.
    hidden = ("_name_or_path", "transformers_version", "_attn_implementation", "architectures", "dtype")
    config = {k: v for k, v in model.config.to_dict().items() if k not in (*hidden, CONFIG_KEY)}
    prompt = None if model.visual_prompt is None else model.visual_prompt.facts()
    head = {
        name: model.hier_head.constants[name] for name in ("curvature", "ball_margin", "max_tangent_norm")
    }
    own = [config, head, model.hier_head.text_levels, prompt]
    prompts = [text for level in level_prompts(class_set, tree, None) for row in level for text in row]
    tokens = processor.tokenizer(prompts, truncation=False, padding=False, verbose=False)["input_ids"]
    return {
        "configuration": digest_of(own),
        "preprocessing": digest_of(processor.image_processor.to_dict()),
        "templates": class_set.templates_hash,
        "prompts": digest_of(prompts),
        "tokens": digest_of(tokens),
    }


def set_facts(data: EvaluationSet, samples: Mapping[str, Mapping], found: Sequence[LevelClassifier]) -> dict:
    """Images, labels, classes, tree and classifiers of one set.

    Args:
        samples: ``sample_ids`` of each threat space.
    """
    images = {f"images at {space} size": one["sha256"] for space, one in samples.items()}
    classifiers = [[one.level, one.name, digest_of(one.to_node)] for one in found]
    return {
        "images": len(data.rows),
        **images,
        "split": data.split,
        "class names": digest_of(data.class_set.class_names),
        "tree": None if data.tree is None else data.tree.hash,
        "classifiers": [f"{level} {name}" for level, name, _ in classifiers],
        "classes of the labels": digest_of(classifiers),
    }


def computed_with(found: Sequence[LevelClassifier]) -> dict[str, list[str]]:
    """The weights behind classifiers, and the user's own code there with its constants."""
    classifiers = [one.classifier for one in found]
    return {"weights": weights_behind(*classifiers), "code": constants_behind(*classifiers)}


def unchanged(before: Mapping[str, list[str]], after: Mapping[str, list[str]]) -> dict[str, str]:
    """Digests of what a call has left as it was: what it changes, such as a cache, decides nothing.

    Args:
        before, after: a call, from `computed_with`.
    """
    facts = {}
    for name, entries in before.items():
        rest, kept = Counter(after[name]), []
        for entry in entries:
            if rest[entry]:
                rest[entry] -= 1
                kept.append(entry)
        facts[name] = digest_of(kept)
    return facts


def answers(
    found: Sequence[LevelClassifier], pixels: Tensor, space: str
) -> dict[str, list[float | str] | None]:
    """The logits of an image, which tell apart models that differ in what can't be looked into.

    Args:
        pixels: (1, 3, H, W) in [0, 1], of this threat space.

    Returns:
        By level and classifier; None where the classifier answers the same image differently.
    """
    facts: dict[str, list[float | str] | None] = {}
    for one in found:
        devices = [pixels.device] if pixels.device.type == "cuda" else []
        with frozen(one.classifier), torch.no_grad(), torch.random.fork_rng(devices):
            first, second = (one.classifier(pixels).float() for _ in range(2))
        steady = torch.allclose(first, second, rtol=1e-3, atol=1e-6, equal_nan=True)
        values = [value if isfinite(value) else str(value) for value in first.flatten().tolist()]
        facts[f"{ANSWERS} of level {one.level}, {one.name} at {space} size"] = values if steady else None
    return facts
