"""Arguments that the chosen objective, attack and data leave without effect: refused, never ignored."""

from __future__ import annotations

from ..attacks import TrainingAttack, TrainingPGD, UniversalHierarchicalAttack
from ..objectives import Objective
from ..options import refuse_idle
from .arguments import RobustTrainingArguments

OF_EVALUATIONS = (
    "eval_strategy",  # before what only says how
    "eval_on_start",
    "metric_for_best_model",
    "robust_eval_samples",
    "robust_eval_steps",
    "per_device_eval_batch_size",
    "eval_accumulation_steps",
)
"""Fields that only an evaluation set gives an effect."""
TEXT_OPTIONS = ("text_step_size", "shared_text", "text_perturbation")


def refuse_without_effect(
    args: RobustTrainingArguments,
    objective: Objective,
    attack: TrainingAttack | None,
    *,
    evaluated: bool,
    calibrated: bool,
) -> None:
    """Refuse arguments that this objective, attack and data leave without effect.

    Args:
        evaluated: whether there is an evaluation set.
        calibrated: whether the model's head is, whose constants must then be given as they are.

    Raises:
        ValueError: naming the argument.
    """
    idle = {} if evaluated else dict.fromkeys(OF_EVALUATIONS, "without eval_dataset")
    if not objective.calibrates:
        idle["calibration_samples"] = f": {objective.name!r} calibrates nothing"
    if attack is None:
        idle["robust_eval_steps"] = ": nothing is attacked"
    for name, why in idle.items():
        if args.changed(name):
            raise ValueError(f"{name}={_shown(getattr(args, name))!r} has no effect{_joined(why)}")
    if not calibrated:
        objective.refuse_idle_head_options()
    if attack is not None:
        _refuse_of_attack(objective, attack)


def _refuse_of_attack(objective: Objective, attack: TrainingAttack) -> None:
    if not objective.trains_on_attack:
        raise ValueError(
            f"attack={attack.name!r} has no effect: {objective.name!r} trains on no attacked images under "
            "its options: leave it out"
        )
    pooled = attack.text_perturbation == "pooled"
    if pooled and "text" in objective.trained_groups:
        raise ValueError(
            f"text_perturbation='pooled' perturbs the states of a frozen text trunk, but {objective.name!r} "
            "trains it: take 'tangent'"
        )
    if isinstance(attack, TrainingPGD) and attack.num_steps == 1:
        refuse_idle(attack, dict.fromkeys(("momentum", "schedule"), "with num_steps=1"))
    if not isinstance(attack, UniversalHierarchicalAttack):
        return
    if not objective.reads_text_delta:
        why = f"on {objective.name!r}, which reads no perturbed text"
        refuse_idle(attack, dict.fromkeys((*(["text_eps"] if attack.text_eps else ()), *TEXT_OPTIONS), why))
    elif not attack.text_eps:
        refuse_idle(attack, dict.fromkeys(TEXT_OPTIONS, "with text_eps=0"))


def _joined(why: str) -> str:
    return why if why.startswith(":") else f" {why}"


def _shown(value: object) -> object:
    return getattr(value, "value", value)
