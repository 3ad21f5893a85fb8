"""PGD as papers train with it: two steps of eps, the last iterate, no verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..base import attackable, input_gradients
from ..image.steps import SteppedAttack
from .base import TRAINING_ATTACKS, Perturbation, TrainingAttack, TrainingLoss


@TRAINING_ATTACKS.register
@dataclass(kw_only=True)
class TrainingPGD(SteppedAttack, TrainingAttack):
    """Projected gradient ascent on the objective's inner loss (Madry et al., 1706.06083; TeCoA's 2 steps).

    Args:
        eps, norm, space: see `PixelAttack`.
        num_steps, random_start, momentum, schedule: see `SteppedAttack`.
        step_size: in pixel scale, ``"1/255"`` is accepted; None means ``eps``, as in most papers.
    """

    name: ClassVar[str] = "pgd"
    num_steps: int = 2

    @property
    def default_step_size(self) -> float:
        return self.threat.eps

    def perturb(
        self,
        loss: TrainingLoss,
        pixels: Tensor,
        *,
        text_shape: tuple[int, int] | None = None,
        levels: int = 1,
        generator: torch.Generator | None = None,
    ) -> list[Perturbation]:
        """See `TrainingAttack.perturb`; text and levels are left alone."""
        pixels = attackable(pixels)
        delta = self.start(pixels, generator)
        velocity = torch.zeros_like(delta)
        for step in range(self.num_steps):
            delta.requires_grad_()
            (gradient,) = input_gradients(loss(pixels + delta), [delta])
            delta, velocity = self.ascend(delta, gradient, velocity, pixels, step)
        return [Perturbation((pixels + delta).detach())]
