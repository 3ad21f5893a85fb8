"""The diagnostics of a target's classifiers, under the attacks of every budget, on a few of its images."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..classifiers.levels import LevelClassifier
from .diagnostics import Check, verdict_with
from .jobs import Key
from .plan import AttackPlan
from .probes import IMAGES, Probed, diagnose
from .shards import Shards
from .state import Notes
from .targets import Target
from .verdicts import Outcome

RELATIVES = {
    "cosine": "hyperbolic",
    "rollup": "rollup-hyperbolic",
    "path": "path-hyperbolic",
}
"""Scores of the same classes by cosine and by distance."""


def diagnose_target(
    plan: AttackPlan,
    target: Target,
    outcomes: Mapping[Key, Outcome],
    *,
    processor,
    device: torch.device | str,
    seed: int,
    notes: Notes | None = None,
    shards: Shards | None = None,
) -> dict[tuple[int, int], Callable[[Mapping], dict]]:
    """What the ``checks`` of a record become, by budget and classifier.

    Args:
        outcomes: of the target's jobs, which say what the reported attacks left.
        notes: of a state directory, which keeps what was found.
        shards: the processes, which share the classifiers and budgets; None is this one alone.
    """
    notes, shards, mine = notes or Notes(), shards or Shards(), {}
    data = target.data.part(IMAGES)
    place_of = {row: place for place, row in enumerate(target.data.rows)}
    places = [place_of[row] for row in data.rows]
    pairs = [(budget, index) for budget in range(len(plan.budgets)) for index in range(len(target.found))]
    for space in plan.spaces():
        pixels = None
        for budget, index in shards.mine(pairs):
            key, attacks = f"{budget}/{index}", plan.budgets[budget]
            if attacks[0].threat.space != space:
                continue
            if key not in notes.found:
                if pixels is None:
                    target.set_space(space)
                    (batch,) = data.loader(processor, space, IMAGES)
                    pixels, leaves = batch["pixels"].to(device), batch["labels"]
                one = target.found[index]
                probed = Probed(
                    classifier=one.classifier,
                    attacks=attacks,
                    pixels=pixels,
                    labels=one.to_node[leaves].to(device),
                    standing=outcomes[Key(budget, index)].robust[places].to(device),
                    relatives=_relatives(target, one),
                    multiplier=None if "hyperbolic" in one.name else target.multiplier,
                    merged=_merged(target, one),
                    seed=seed,
                )
                checks, cost = diagnose(probed)
                spent = {name: round(value, 1) for name, value in cost._asdict().items()}
                notes.add(key, [checks, {"images": len(pixels), **spent}])
            mine[key] = notes.found[key]
    lines = shards.gather([json.dumps([key, value]) for key, value in mine.items()])
    found = dict(map(json.loads, lines))
    return {(budget, index): _merging(*found[f"{budget}/{index}"]) for budget, index in pairs}


def _merging(rows: list, spent: dict) -> Callable[[Mapping], dict]:
    checks = [Check(*row) for row in rows]
    return lambda before: verdict_with(before, checks) | {"diagnosed": spent}


def _relatives(target: Target, one: LevelClassifier) -> dict[str, Callable[[Tensor], Tensor]]:
    """The same classes by the other score."""
    other = RELATIVES.get(one.name) or {b: a for a, b in RELATIVES.items()}.get(one.name)
    return {
        relative.name: relative.classifier
        for relative in target.found
        if relative.name == other
        and relative.level == one.level
        and torch.equal(relative.to_node, one.to_node)
    }


def _merged(target: Target, one: LevelClassifier) -> int:
    """Classes that count as one with another because their prompts are equal."""
    tree = target.data.tree
    classes = len(target.data.class_set) if one.level == 0 else len(tree.levels[one.level])
    return max(0, classes - int(one.to_node.max()) - 1)
