"""The plan of an evaluation, out of the options of a run or the arguments of `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from ..attacks import EmbeddingPGD, TextAttack
from ..classifiers import TTC
from ..evaluation import AttackPlan
from ..options import json_mapping
from ..threat import ThreatModel, parse_eps
from ..training.arguments import build_text_attack
from .arguments import RunArguments

DEFENCES = {TTC.name: TTC}


def evaluation_plan(args: RunArguments, threat: ThreatModel) -> AttackPlan:
    """The evaluation's attacks, in the norm and space of the training threat.

    Raises:
        ValueError: an option that is unknown, has no effect or does not fit another; the message names it.
    """
    budgets = [threat.eps]
    if args.eval_eps:
        budgets = [parse_eps(eps.strip(), "eval_eps", threat.norm) for eps in args.eval_eps.split(",")]
    return AttackPlan.of(
        args.eval_attack,
        budgets,
        norm=threat.norm,
        space=threat.space,
        besides=besides(
            transfer=args.transfer,
            targets=args.targets,
            defence=args.defence,
            defence_args=args.defence_args,
            eot=args.eot,
            checks=args.checks,
            text_attack=args.eval_text_attack,
            text_attack_args=args.eval_text_attack_args,
            text_orders=args.eval_text_orders,
            prefix="eval_",
        ),
        **_attack_options(args, threat),
    )


def besides(
    *,
    transfer: bool = False,
    targets: str | Sequence[str] | None = None,
    defence: str | TTC | None = None,
    defence_args: dict | str | None = None,
    eot: int = 10,
    checks: bool = False,
    text_attack: str | TextAttack | EmbeddingPGD | None = None,
    text_attack_args: dict | str | None = None,
    text_orders: str | Sequence[str] | None = None,
    prefix: str = "",
) -> dict[str, Any]:
    """Fields of the plan other than its budgets; names become instances, commas separate several.

    Args:
        prefix: of the text attack's options, for messages.
    """
    if isinstance(text_attack, str):
        if text_attack == EmbeddingPGD.name:
            options = json_mapping(text_attack_args, f"{prefix}text_attack_args")
            text_attack = _built(EmbeddingPGD, options, f"{prefix}text_attack_args")
        else:
            text_attack = build_text_attack(text_attack, text_attack_args, prefix)
    elif text_attack_args:
        raise ValueError(f"{prefix}text_attack_args are given but no {prefix}text_attack that takes them")
    if isinstance(defence, str):
        if defence not in DEFENCES:
            raise ValueError(f"defence={defence!r} is unknown: choose {', '.join(DEFENCES)}")
        defence = _built(DEFENCES[defence], json_mapping(defence_args, "defence_args"), "defence_args")
    elif defence_args:
        raise ValueError("defence_args are given but no defence that takes them")
    return {
        "transfer": transfer,
        "targets": _several(targets) or (),
        "defence": defence,
        "eot": eot,
        "checks": checks,
        "text_attack": text_attack,
        "text_orders": _several(text_orders),
    }


def _several(values: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if isinstance(values, str):
        values = [value.strip() for value in values.split(",")]
    return None if values is None else tuple(values)


def _built(cls, options: Mapping, argument: str):
    try:
        return cls(**options)
    except TypeError as error:
        known = [one.name for one in fields(cls) if one.init]
        raise ValueError(f"{argument}: {error}; {cls.name!r} takes {', '.join(known)}") from None


def _attack_options(args: RunArguments, threat: ThreatModel) -> dict:
    options = json_mapping(args.eval_attack_args, "eval_attack_args")
    if args.eval_step_size is not None:
        parse_eps(args.eval_step_size, "eval_step_size", threat.norm)  # a message with this name
    for name in ("num_steps", "step_size", "restarts"):
        if (value := getattr(args, f"eval_{name}")) is not None:
            if name in options:
                raise ValueError(f"eval_{name}={value} and eval_attack_args both set {name}: give it once")
            options[name] = value
    return options
