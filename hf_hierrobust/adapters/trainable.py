"""Which parameters train: named groups, switched on by the objective, and proof that the others do not."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn
from transformers import logging

from .fingerprints import fingerprints
from .lora import adapter_parameters, has_adapters

logger = logging.get_logger(__name__)

# One table for all families: SigLIP's text projection is the head of its text tower, the pooling that stands
# for a visual projection is part of its vision tower, and its logits have a bias beside the scale.
GROUPS: dict[str, str] = {
    "vision": r"vision_model\.|visual_projection\.",
    "text": r"text_model\.(?!head\.)",
    "text_projection": r"text_projection\.|text_model\.head\.",
    "logit_scale": r"logit_(scale|bias)$",
    "hier_head": r"hier_head\.",
    "visual_prompt": r"visual_prompt\.",
}


def set_trainable(model: nn.Module, groups: Iterable[str]) -> dict[str, int]:
    """Train the parameters of these groups and freeze all others.

    Parameter-efficient parts take the place of what they stand for. In a model with adapters (`add_lora`)
    the groups of towers and projections are their adapters; one without an adapter stays frozen, with a
    warning. In a model with a visual prompt and no adapters ``"vision"`` is the prompt; with both, it is
    both. Naming ``"visual_prompt"`` among the groups leaves ``"vision"`` its usual meaning.

    Returns:
        Number of trained parameters of each group that trains, in the order given.

    Raises:
        ValueError: an unknown group, one in which the model has no parameter, or adapters that no group
            would train; nothing is changed then.
    """
    groups = _with_prompt(model, list(groups))
    unknown = [g for g in groups if g not in GROUPS]
    if unknown:
        raise ValueError(f"unknown parameter groups {unknown}: choose from {', '.join(GROUPS)}")
    adapters = {name for part in adapter_parameters(model).values() for name in part}
    counts, trained = dict.fromkeys(groups, 0), set()
    for name, parameter in model.named_parameters():
        group = next((g for g in groups if re.match(GROUPS[g], name)), None)
        if group is None or (adapters and _adaptable(group) and name not in adapters):
            continue
        counts[group] += parameter.numel()
        trained.add(name)
    if idle := sorted(adapters - trained):
        raise ValueError(f"the adapters of {idle[0]} (and {len(idle) - 1} more) are of no group in {groups}")
    empty = [g for g, count in counts.items() if count == 0]
    frozen = [g for g in empty if adapters and _adaptable(g)]
    if empty != frozen:
        raise ValueError(f"{type(model).__name__} has no parameters of the groups {empty}")
    if frozen:
        logger.warning(f"no adapter in the groups {', '.join(frozen)}: they stay as they are")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    return {g: count for g, count in counts.items() if count}


def _adaptable(group: str) -> bool:
    return group in ("vision", "text", "text_projection")


def _with_prompt(model: nn.Module, groups: list[str]) -> list[str]:
    if getattr(model, "visual_prompt", None) is None or "visual_prompt" in groups or "vision" not in groups:
        return groups
    stands_for = ["vision", "visual_prompt"] if has_adapters(model) else ["visual_prompt"]
    return [part for g in groups for part in (stands_for if g == "vision" else [g])]


def efficient_parts(model: nn.Module) -> dict[str, dict[str, nn.Parameter]]:
    """Part -> full name -> parameter, for every adapted layer and the visual prompt."""
    parts = adapter_parameters(model)
    if getattr(model, "visual_prompt", None) is not None:
        named = model.visual_prompt.named_parameters(prefix="visual_prompt")
        parts["visual_prompt"] = dict(named)
    return parts


class FrozenWeightsError(RuntimeError):
    """Weights that must stay moved, or weights that must train did not."""


class MovementCheck:
    """Around one optimiser step: adapters and prompts move, base weights do not.

    Args:
        model: just before the step.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self._before = fingerprints(dict(model.named_parameters()))

    def verify(self) -> None:
        """Compare after the step.

        Raises:
            FrozenWeightsError: a frozen weight moved, or an adapter or the prompt stood still.
        """
        parameters = dict(self.model.named_parameters())
        after = fingerprints(parameters)
        moved = {name for name, value in after.items() if value != self._before[name]}
        if wrong := [name for name in moved if not parameters[name].requires_grad]:
            raise FrozenWeightsError(
                f"{len(wrong)} frozen weights moved in the first step, such as {min(wrong)}"
            )
        parts = efficient_parts(self.model)
        if still := [part for part, named in parts.items() if moved.isdisjoint(named)]:
            raise FrozenWeightsError(
                f"{len(still)} of {len(parts)} adapters did not move in the first step, such as {still[0]}: "
                "the optimiser does not hold them, their gradient is zero, or the learning rate vanishes"
            )
