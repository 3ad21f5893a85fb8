"""The facts of a training run, gathered for its model card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..evaluation.records import RobustnessRecord
from ..hub import CardFacts, TreeFacts
from ..naming import public_name

if TYPE_CHECKING:
    from .arguments import RobustTrainingArguments
    from .trainer import RobustCLIPTrainer


def card_facts(
    trainer: RobustCLIPTrainer,
    records: Sequence[RobustnessRecord] = (),
    figures: Sequence[str] = (),
    datasets: Sequence[str] = (),
) -> CardFacts:
    """What the card of a run states: only what was configured or measured.

    Args:
        records: measurements of the trained model, with the base's beside them.
        figures: paths relative to the output directory.
        datasets: Hub ids or names of the training data.
    """
    args, objective, data = trainer.args, trainer.objective, trainer.train_dataset
    recipe, forest = trainer.recipe(args), trainer.forest if "tree" in objective.needs else None
    hyperparameters = {
        "learning_rate": args.learning_rate,
        "optimizer": _plain(args.optim),
        **_optimizer_options(args),
        "lr_scheduler_type": _plain(args.lr_scheduler_type),
        "warmup_steps": args.warmup_steps,
        "weight_decay": args.weight_decay,
        "max_grad_norm": args.max_grad_norm,
        "batch_size": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "steps": trainer.state.global_step,
        "epochs": round(trainer.state.epoch or 0, 2),
        "bf16": args.bf16,
        "seed": args.seed,
        "training_images": len(data) if hasattr(data, "__len__") else "stream",
        "template": args.template,
        **_adapter_options(args),
        **{f"objective.{key}": value for key, value in recipe["objective_args"].items()},
        **{f"attack.{key}": value for key, value in (recipe["attack"] or {}).items()},
        **{f"text_attack.{key}": value for key, value in recipe.get("text_attack", {}).items()},
    }
    threat = "none: trained on clean images"
    if trainer.attack is not None:
        threat = f"{trainer.attack.threat}, perturbation at the {trainer.attack.threat.space} resolution"
    return CardFacts(
        model_name=public_name(args.hub_model_id or args.output_dir),
        repo_id=args.hub_model_id,
        base_model=trainer.base_model,
        objective=objective.name,
        threat_model=threat,
        paper_id=objective.paper_id,
        paper_title=objective.title,
        citation=objective.citation,
        datasets=datasets,
        template=args.template,
        hyperparameters=hyperparameters,
        trained_parameters=trainer.trained,
        trees=[
            TreeFacts(
                name=tree.name, levels=tree.sizes, hash=tree.hash, source=tree.source, licence=tree.licence
            )
            for tree in forest or ()
        ],
        visual_prompt=_has_visual_prompt(args),
        records=records,
        figures=figures,
    )


def _optimizer_options(args: RobustTrainingArguments) -> dict:
    """What the optimizer's name does not say, for the family it belongs to."""
    found = {"optim_args": args.optim_args} if args.optim_args else {}
    if "adam" in _plain(args.optim):
        found |= {name: getattr(args, name) for name in ("adam_beta1", "adam_beta2", "adam_epsilon")}
    return found


def _adapter_options(args: RobustTrainingArguments) -> dict:
    """LoRA and visual prompts, where they were trained."""
    found = {}
    if args.lora_r is not None:
        names = ("lora_r", "lora_alpha", "lora_dropout", "lora_towers")
        found = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if _has_visual_prompt(args):
        found |= {name: getattr(args, name) for name in ("visual_prompt_tokens", "visual_prompt_border")}
    return found


def _has_visual_prompt(args: RobustTrainingArguments) -> bool:
    return args.visual_prompt_tokens > 0 or args.visual_prompt_border > 0


def _plain(value) -> str:
    return str(getattr(value, "value", value))
