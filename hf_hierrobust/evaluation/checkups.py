"""The diagnostics of a target's classifiers, under the attacks of every budget, on a few of its images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..classifiers.levels import LevelClassifier
from .diagnostics import verdict_with
from .plan import AttackPlan
from .probes import IMAGES, Probed, diagnose
from .targets import Target

RELATIVES = {
    "cosine": "hyperbolic",
    "rollup": "rollup-hyperbolic",
    "path": "path-hyperbolic",
}
"""Scores of the same classes by cosine and by distance."""


def diagnose_target(
    plan: AttackPlan,
    target: Target,
    *,
    processor,
    device: torch.device | str,
    seed: int,
) -> dict[tuple[int, int], Callable[[Mapping], dict]]:
    """What the ``checks`` of a record become, by budget and classifier; each process asks for itself."""
    found = {}
    data = replace(target.data, num_samples=min(IMAGES, len(target.data.rows)))
    for space in plan.spaces():
        target.set_space(space)
        (batch,) = data.loader(processor, space, IMAGES)
        pixels, leaves = batch["pixels"].to(device), batch["labels"]
        for budget, attacks in enumerate(plan.budgets):
            if attacks[0].threat.space != space:
                continue
            for index, one in enumerate(target.found):
                probed = Probed(
                    classifier=one.classifier,
                    attacks=attacks,
                    pixels=pixels,
                    labels=one.to_node[leaves].to(device),
                    relatives=_relatives(target, one),
                    multiplier=None if "hyperbolic" in one.name else target.multiplier,
                    merged=_merged(target, one),
                    seed=seed,
                )
                found[budget, index] = _merging(probed, *diagnose(probed))
    return found


def _merging(probed: Probed, checks, cost) -> Callable[[Mapping], dict]:
    spent = {name: round(value, 1) for name, value in cost._asdict().items()}
    return lambda before: (
        verdict_with(before, checks) | {"diagnosed": {"images": len(probed.pixels), **spent}}
    )


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
