"""The facts of a training run, gathered for its model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from typing import Any

from ..attacks import TextAttack, TrainingAttack
from ..digests import describe_differences
from ..evaluation.records import RobustnessRecord, environment_versions
from ..hierarchy import Forest, LabelTree
from ..hub import CardFacts, TreeFacts
from ..naming import public_name
from ..objectives import Objective
from ..threat import ThreatModel
from .arguments import RobustTrainingArguments
from .optimizer import scale_learning_rate
from .source import source_commit

_FOLDED = ("warmup_steps", "weight_decay", "max_grad_norm", "adam_beta1", "adam_beta2", "adam_epsilon")
"""Training arguments that a card folds away where they stand at their defaults."""


@dataclass(frozen=True, kw_only=True)
class TrainingFacts:
    """What a training was, beside its arguments: what really ran.

    Attributes:
        base_model: Hub id or path.
        recipe: as in ``config.hier_robust``.
        threat: of the training attack; None trained on clean images.
        trained: parameters by group.
        parts: "adapter" and "visual_prompt" of the model as it is, where it has them; see its ``facts``.
        trees: those that the objective used.
        images: number of training images, or "stream".
        batch_size: images an optimiser step, over all processes.
        precision: of the training forwards: "fp32" or "bf16".
        steps, epochs: so far.
        changes: of settings at a resume, ``{"step", "changed": {name: [old, new]}}``.
        usual: what options of the objective and its attacks are by default, by the recipe's names.
    """

    base_model: str
    objective: Objective
    recipe: Mapping
    threat: ThreatModel | None
    trained: Mapping[str, int]
    parts: Mapping[str, Mapping]
    trees: Sequence[LabelTree]
    images: int | str
    batch_size: int
    precision: str
    steps: int
    epochs: float
    usual: Mapping[str, Any]
    changes: Sequence[Mapping] = ()


def recipe(
    objective: Objective,
    attack: TrainingAttack | None,
    text_attack: TextAttack | None,
    template: str,
    forest: Forest | None,
) -> dict:
    """What ``config.hier_robust`` and the card say about a training."""
    found = {
        "objective": objective.name,
        "objective_args": objective.options(),
        "attack": None if attack is None else attack.describe(),
        **({} if text_attack is None else {"text_attack": text_attack.describe()}),
        "template": template,
    }
    if forest is not None:
        found["trees"] = [{"name": t.name, "hash": t.hash, "sizes": list(t.sizes)} for t in forest]
    return found


def card_facts(
    args: RobustTrainingArguments,
    facts: TrainingFacts,
    *,
    records: Sequence[RobustnessRecord] = (),
    figures: Sequence[str] = (),
    datasets: Sequence[str] = (),
    **more: Any,
) -> CardFacts:
    """What the card of a run states: only what was configured or measured.

    Args:
        records: measurements of the trained model, with the base's beside them.
        figures: paths relative to the output directory.
        datasets: Hub ids or names of the training data.
        more: other fields of `CardFacts`, such as ``licence`` and ``warnings``.
    """
    objective = facts.objective
    scales = {}
    if "hier_head" in objective.trained_groups:
        scales = {"scale_learning_rate": scale_learning_rate(args)}
    settings = {
        "learning_rate": args.learning_rate,
        **scales,
        "optimizer": _plain(args.optim),
        **_optimizer_options(args),
        "lr_scheduler_type": _plain(args.lr_scheduler_type),
        "warmup_steps": args.warmup_steps,
        "weight_decay": args.weight_decay,
        "max_grad_norm": args.max_grad_norm,
        "batch_size": facts.batch_size,
        "steps": facts.steps,
        "epochs": round(facts.epochs, 2),
        "precision": facts.precision,
        "seed": args.seed,
        "training_images": facts.images,
        "template": args.template,
        **_adapter_options(args, facts.parts),
        **{f"objective.{key}": value for key, value in facts.recipe["objective_args"].items()},
        **{f"attack.{key}": value for key, value in (facts.recipe["attack"] or {}).items()},
        **{f"text_attack.{key}": value for key, value in facts.recipe.get("text_attack", {}).items()},
    }
    usual = facts.usual | {
        name: f.default for name, f in args.__dataclass_fields__.items() if name in _FOLDED
    }
    defaults = {key: value for key, value in settings.items() if key in usual and usual[key] == value}
    threat = "none: trained on clean images"
    if facts.threat is not None:
        threat = f"{facts.threat}, perturbation at the {facts.threat.space} resolution"
    return CardFacts(
        model_name=public_name(args.hub_model_id or args.output_dir),
        repo_id=args.hub_model_id,
        base_model=facts.base_model,
        objective=objective.name,
        threat_model=threat,
        paper_id=objective.paper_id,
        paper_title=objective.title,
        citation=objective.citation,
        datasets=datasets,
        template=args.template,
        hyperparameters={key: value for key, value in settings.items() if key not in defaults},
        defaults=defaults,
        versions=environment_versions() | ({"commit": commit} if (commit := source_commit()) else {}),
        trained_parameters=facts.trained,
        trees=[_tree_facts(tree) for tree in facts.trees],
        visual_prompt="visual_prompt" in facts.parts,
        records=records,
        figures=figures,
        warnings=[*more.pop("warnings", ()), *map(_change_sentence, facts.changes)],
        **more,
    )


def _change_sentence(change: Mapping) -> str:
    words = describe_differences(change["changed"], shown=len(change["changed"]))
    return f"The first {change['step']} steps were trained under other settings ({words})."


def with_card_options(facts: CardFacts, options: Mapping[str, Any]) -> CardFacts:
    """Facts changed by the options that `Trainer.create_model_card` takes.

    Raises:
        TypeError: an option that has no place on our card, or is none.
    """
    names = {"license": "licence", "finetuned_from": "base_model", "dataset": "datasets"}
    known = {**names, "language": "language", "tags": "tags", "model_name": "model_name"}
    if unknown := sorted(set(options) - set(known)):
        raise TypeError(f"the card has no place for {', '.join(unknown)}; it takes {', '.join(known)}")
    found = {known[name]: value for name, value in options.items() if value is not None}
    for name in {"datasets", "tags"} & set(found):
        found[name] = (found[name],) if isinstance(found[name], str) else tuple(found[name])
    return replace(facts, **found)


def usual_options(
    objective: Objective, attack: TrainingAttack | None, text_attack: TextAttack | None
) -> dict:
    """Defaults of an objective's options and of its attacks', by their names in a card.

    What names an attack (its budget, space and steps) has none: it is always shown.
    """
    named = {"name", "norm", "eps", "space", "threat", "num_steps", "step_size"}
    found = {f"objective.{key}": value for key, value in _field_defaults(objective).items()}
    for prefix, one in (("attack", attack), ("text_attack", text_attack)):
        found |= {f"{prefix}.{k}": v for k, v in _field_defaults(one).items() if k not in named}
    return found


def _field_defaults(instance: object) -> dict:
    if not is_dataclass(instance):
        return {}
    found = {f.name: f.default for f in fields(instance) if f.init and f.default is not MISSING}
    return found | {
        f.name: f.default_factory() for f in fields(instance) if f.init and f.default_factory is not MISSING
    }


def _tree_facts(tree: LabelTree) -> TreeFacts:
    chains = [[tree.display_names(level)[i] for level, i in enumerate(nodes)] for nodes in _node_rows(tree)]
    return TreeFacts(
        name=tree.name,
        levels=tree.sizes,
        hash=tree.hash,
        source=tree.source,
        licence=tree.licence,
        paths={leaf: above for leaf, *above in chains},
    )


def _node_rows(tree: LabelTree) -> list[tuple[int, ...]]:
    """Index of each leaf's node at every level, leaf first."""
    return list(zip(*(tree.ancestors(level).tolist() for level in range(tree.num_levels))))


def _optimizer_options(args: RobustTrainingArguments) -> dict:
    """What the optimizer's name does not say, for the family it belongs to."""
    found = {"optim_args": args.optim_args} if args.optim_args else {}
    if "adam" in _plain(args.optim):
        found |= {name: getattr(args, name) for name in ("adam_beta1", "adam_beta2", "adam_epsilon")}
    return found


def _adapter_options(args: RobustTrainingArguments, parts: Mapping[str, Mapping]) -> dict:
    """LoRA and visual prompts that the model has, of whatever training they came."""
    found = {}
    if adapter := parts.get("adapter"):
        found = {"lora_r": adapter.get("r"), "lora_towers": args.lora_towers}
        found |= {name: adapter.get(name) for name in ("lora_alpha", "lora_dropout")}
        found["adapter"] = None if adapter["peft_type"] == "LORA" else adapter["peft_type"]
    if prompt := parts.get("visual_prompt"):
        found |= {f"visual_prompt_{name}": prompt[name] for name in ("tokens", "border")}
    return {name: value for name, value in found.items() if value is not None}


def _plain(value) -> str:
    return str(getattr(value, "value", value))
