"""Projected gradient descent (Madry et al., 1706.06083) for linf and l2, as an evaluation attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...options import check_counts, check_flag
from .base import ATTACKS, Attack
from .criteria import AttackLoss, resolve_loss
from .steps import SteppedAttack
from .victim import Victim


@ATTACKS.register
@dataclass(kw_only=True)
class PGD(SteppedAttack, Attack):
    """Projected gradient ascent on an attack loss; an image is broken by any iterate of any restart.

    It returns the first iterate that is misclassified, or the last one of the last restart.

    Args:
        eps, norm, space: see `PixelAttack`.
        num_steps, random_start, momentum, schedule: see `SteppedAttack`.
        step_size: in pixel scale, ``"1/255"`` is accepted; None means ``eps / 4``. The papers use ``eps``
            (with 3 training or 20 test steps), which hops between corners of the ball (OC-20).
        restarts: independent random starts, each on the images that survived the earlier ones.
        loss: ``"ce"`` (float64), ``"margin"``, or a callable (logits, labels) -> (B,).
        early_stop: stop working on an image once an iterate is misclassified; off, every image
            takes all steps (the verdicts are the same, the time is not).
    """

    name: ClassVar[str] = "pgd"
    restarts: int = 1
    loss: str | AttackLoss = "ce"
    early_stop: bool = True

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "restarts")
        check_flag(self, "early_stop")
        resolve_loss(self.loss)

    @property
    def default_step_size(self) -> float:
        return self.threat.eps / 4

    def run(
        self, victim: Victim, pixels: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        loss = resolve_loss(self.loss)
        adversarial = pixels.clone()
        standing = torch.ones(len(pixels), dtype=torch.bool, device=pixels.device)
        for restart in range(self.restarts):
            alive = standing.nonzero()[:, 0]
            if len(alive) == 0:
                break
            delta = self.start(pixels[alive], generator)
            velocity = torch.zeros_like(delta)
            for step in range(self.num_steps + 1):
                x, y = pixels[alive], labels[alive]
                attacked = x + delta.requires_grad_()
                adversarial[alive] = torch.where(
                    standing[alive].view(-1, 1, 1, 1), attacked.detach(), adversarial[alive]
                )
                if step == self.num_steps:
                    if restart < self.restarts - 1:  # after the last one the frame judges
                        standing[alive] &= ~victim.fooled(attacked.detach(), y)
                    break
                logits = victim.logits(attacked)
                fooled = victim.fooled(attacked.detach(), y, logits.detach())
                standing[alive] &= ~fooled
                gradient = victim.gradient(loss(logits, y), delta)
                delta, velocity = self.ascend(delta, gradient, velocity, x, step)
                if self.early_stop:
                    keep = ~fooled
                    alive, delta, velocity = alive[keep], delta[keep], velocity[keep]
                    if len(alive) == 0:
                        break
        return adversarial
