"""An attack of one's own for evaluation and for training: one file outside the package."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from hf_hierrobust import ATTACKS, TRAINING_ATTACKS, Attack, Perturbation, TrainingAttack


@ATTACKS.register
@dataclass(kw_only=True)
class OneStep(Attack):
    """One signed step of the whole budget."""

    name: ClassVar[str] = "own_step"

    def run(self, victim, pixels, labels, generator):
        x = pixels.clone().requires_grad_()
        gradient = victim.gradient(F.cross_entropy(victim.logits(x).double(), labels, reduction="none"), x)
        return pixels + self.threat.eps * gradient.sign()  # the frame projects and judges


@TRAINING_ATTACKS.register
@dataclass(kw_only=True)
class OneTrainingStep(TrainingAttack):
    """The same in training, towards the objective's own inner loss."""

    name: ClassVar[str] = "own_step"

    def perturb(self, loss, pixels, *, text_shape=None, levels=1, generator=None):
        x = pixels.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(x).sum(), x)
        return [Perturbation((pixels + self.threat.eps * gradient.sign()).clamp(0, 1).detach())]
