"""HierRobust's universal perturbation of pixels and text nodes, and its two ablation rivals.

Source: HierRobust (2604.18867), inner maximisation; OC-10 (docs/decisions.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ...options import check_choice, check_flag, check_numbers
from ..base import attackable, input_gradients
from .base import TRAINING_ATTACKS, Levels, Perturbation, TrainingLoss
from .pgd import TrainingPGD


@TRAINING_ATTACKS.register
@dataclass(kw_only=True)
class UniversalHierarchicalAttack(TrainingPGD):
    """One perturbation of pixels and text nodes that attacks all tree levels at once.

    Both maximise the same loss, from one joint backward pass a step. The text perturbation lies in an linf
    ball, about the nodes' tangent vectors right before the exponential map or about their pooled states.

    Args:
        eps, norm, space: see `PixelAttack`.
        num_steps, step_size, random_start, momentum, schedule: see `TrainingPGD`.
        text_eps: linf radius of the text perturbation; 0 leaves the text alone.
        text_step_size: None means ``text_eps``, as the paper's image step equals its budget.
        shared_text: one text perturbation for all nodes (1, D) instead of one a node (N, D).
        text_perturbation: what it is added to: ``"tangent"`` vectors (N, D), or ``"pooled"`` states (N, w)
            before the text projection, whose trunk must be frozen.
    """

    name: ClassVar[str] = "universal"
    num_steps: int = 3
    random_start: str = "gaussian"
    text_eps: float = 2e-4
    text_step_size: float | None = None
    shared_text: bool = False
    text_perturbation: Literal["tangent", "pooled"] = "tangent"

    def __post_init__(self):
        super().__post_init__()
        check_numbers(self, "text_eps")
        check_flag(self, "shared_text")
        check_choice(self, "text_perturbation", ("tangent", "pooled"))
        if self.text_step_size is not None:
            check_numbers(self, "text_step_size", positive=True)

    def perturb(
        self,
        loss: TrainingLoss,
        pixels: Tensor,
        *,
        text_shape: tuple[int, int] | None = None,
        levels: int = 1,
        generator: torch.Generator | None = None,
    ) -> list[Perturbation]:
        """See `TrainingAttack.perturb`; ``text_delta`` is (N, D), or (1, D) where it is shared."""
        pixels = attackable(pixels)
        return [
            self._joint(loss, pixels, text_shape, attacked, generator)._replace(levels=trained)
            for attacked, trained in self.level_groups(levels)
        ]

    def level_groups(self, levels: int) -> list[tuple[Levels, Levels]]:
        """For each perturbation the levels it attacks and the levels trained on it; None is all of them."""
        return [(None, None)]

    def _joint(self, loss, pixels, text_shape, group, generator) -> Perturbation:
        delta = self.start(pixels, generator)
        velocity = torch.zeros_like(delta)
        text_delta = self._text_start(pixels, text_shape)
        text_step = self.text_eps if self.text_step_size is None else self.text_step_size
        for step in range(self.num_steps):
            delta.requires_grad_()
            inputs = [delta] if text_delta is None else [delta, text_delta.requires_grad_()]
            gradient, *text_gradient = input_gradients(loss(pixels + delta, text_delta, group), inputs)
            delta, velocity = self.ascend(delta, gradient, velocity, pixels, step)
            if text_gradient:
                text_delta = text_delta.detach() + text_step * text_gradient[0].sign()
                text_delta = text_delta.clamp(-self.text_eps, self.text_eps)
        return Perturbation((pixels + delta).detach(), text_delta)

    def _text_start(self, pixels: Tensor, text_shape: tuple[int, int] | None) -> Tensor | None:
        if not self.text_eps or text_shape is None:
            return None
        rows = 1 if self.shared_text else text_shape[0]
        return torch.zeros(rows, text_shape[1], dtype=torch.float32, device=pixels.device)


@TRAINING_ATTACKS.register
@dataclass(kw_only=True)
class LeafAttack(UniversalHierarchicalAttack):
    """The paper's first rival: the perturbation sees the leaf level only; training still has all levels."""

    name: ClassVar[str] = "leaf"

    def level_groups(self, levels: int) -> list[tuple[Levels, Levels]]:
        return [((0,), None)]


@TRAINING_ATTACKS.register
@dataclass(kw_only=True)
class PerLevelAttack(UniversalHierarchicalAttack):
    """The paper's second rival: every level gets its own perturbation, at that many times the cost."""

    name: ClassVar[str] = "per_level"

    def level_groups(self, levels: int) -> list[tuple[Levels, Levels]]:
        return [((level,), (level,)) for level in range(levels)]
