"""Which parameters train: named groups, switched on by the objective."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn

GROUPS: dict[str, str] = {
    "vision": r"vision_model\.|visual_projection\.",
    "text": r"text_model\.",
    "text_projection": r"text_projection\.",
    "logit_scale": r"logit_scale$",
    "hier_head": r"hier_head\.",
}


def set_trainable(model: nn.Module, groups: Iterable[str]) -> dict[str, int]:
    """Train the parameters of these groups and freeze all others.

    Returns:
        Number of trained parameters of each group, in the order given.

    Raises:
        ValueError: an unknown group, or one in which the model has no parameter; nothing is changed then.
    """
    groups = list(groups)
    unknown = [g for g in groups if g not in GROUPS]
    if unknown:
        raise ValueError(f"unknown parameter groups {unknown}: choose from {', '.join(GROUPS)}")
    counts, trained = dict.fromkeys(groups, 0), set()
    for name, parameter in model.named_parameters():
        group = next((g for g in groups if re.match(GROUPS[g], name)), None)
        if group is not None:
            counts[group] += parameter.numel()
            trained.add(name)
    empty = [g for g, count in counts.items() if count == 0]
    if empty:
        raise ValueError(f"{type(model).__name__} has no parameters of the groups {empty}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    return counts
