"""Projected gradient descent (Madry et al., 1706.06083) for linf and l2, for evaluation and for training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ...classifiers.freezing import Classifier
from ...options import check_choice, check_counts, check_flag, check_numbers
from ...threat import parse_eps, unit
from ..training.base import Perturbation
from .base import ATTACKS, Attack, AttackResult, attackable, input_gradients
from .criteria import AttackLoss, misclassified, resolve_loss

Start = Literal["uniform", "gaussian", "zero"]
Schedule = Literal["constant", "linear", "cosine"]


@ATTACKS.register
@dataclass(kw_only=True)
class PGD(Attack):
    """Projected gradient ascent on an attack loss.

    As an evaluation attack (`__call__`) it drops an image as soon as any iterate of any restart is
    misclassified. As a training attack (`perturb`) it returns the last iterate.

    Args:
        threat: norm, eps and space.
        num_steps: gradient steps per restart.
        step_size: in pixel scale, ``"1/255"`` is accepted; None means ``eps / 4``. The papers use ``eps``
            (with 3 training or 20 test steps), which hops between corners of the ball (OC-20).
        restarts: independent random starts, each on the images that survived the earlier ones.
        random_start: ``"uniform"`` in the ball, ``"gaussian"`` 0.001 N(0, I) (sister papers' convention,
            OC-10), or ``"zero"``.
        loss: ``"ce"``, ``"margin"``, or a callable (logits, labels) -> (B,).
        momentum: decay of the accumulated gradient, each divided by its L1 norm (MI-FGSM, 1710.06081); 0
            switches it off.
        schedule: how the step size shrinks over the steps: not at all, linearly or by a cosine.
        early_stop: stop working on an image once an iterate is misclassified; off, every image
            takes all steps (the verdicts are the same, the time is not).
    """

    name: ClassVar[str] = "pgd"
    evaluation_only: ClassVar[frozenset[str]] = frozenset({"restarts", "loss", "early_stop"})
    num_steps: int = 20
    step_size: float | str | None = None
    restarts: int = 1
    random_start: Start = "uniform"
    loss: str | AttackLoss = "ce"
    momentum: float = 0.0
    schedule: Schedule = "constant"
    early_stop: bool = True

    def __post_init__(self):
        check_counts(self, "num_steps", "restarts")
        if self.step_size is not None:
            self.step_size = parse_eps(self.step_size, "step_size", self.threat.norm)
        check_numbers(self, "momentum")
        check_choice(self, "random_start", ("uniform", "gaussian", "zero"))
        check_choice(self, "schedule", ("constant", "linear", "cosine"))
        check_flag(self, "early_stop")
        resolve_loss(self.loss)

    def run(
        self,
        model: Classifier,
        search_model: Classifier,
        pixels: Tensor,
        labels: Tensor,
        clean_correct: Tensor,
        generator: torch.Generator | None,
    ) -> AttackResult:
        loss_fn = resolve_loss(self.loss)
        adversarial, robust = pixels.clone(), clean_correct.clone()
        zero_gradient = None
        for _ in range(self.restarts):
            alive = robust.nonzero()[:, 0]
            if len(alive) == 0:
                break
            delta = self.start(pixels[alive], generator)
            velocity = torch.zeros_like(delta)
            for step in range(self.num_steps + 1):
                x, y = pixels[alive], labels[alive]
                delta.requires_grad_()
                logits = search_model(x + delta)
                fooled = _fooled(model, search_model, logits, x + delta, y, last=step == self.num_steps)
                adversarial[alive] = torch.where(
                    robust[alive].view(-1, 1, 1, 1), (x + delta).detach(), adversarial[alive]
                )
                robust[alive] &= ~fooled
                if step == self.num_steps:
                    break
                (gradient,) = input_gradients(loss_fn(logits, y), [delta])
                if zero_gradient is None:
                    zero_gradient = float((gradient.flatten(1).abs().amax(1) == 0).float().mean())
                delta, velocity = self.ascend(delta, gradient, velocity, x, step)
                if self.early_stop:
                    keep = ~fooled
                    alive, delta, velocity = alive[keep], delta[keep], velocity[keep]
                    if len(alive) == 0:
                        break
        return AttackResult(adversarial, clean_correct, robust, zero_gradient or 0.0)

    def perturb(
        self,
        loss_fn: Callable[[Tensor], Tensor],
        pixels: Tensor,
        text_shape: tuple[int, int] | None = None,
        levels: int = 1,
        generator: torch.Generator | None = None,
    ) -> list[Perturbation]:
        """Maximise a loss over the pixels of a batch and return the last iterate.

        The caller freezes the model (`frozen`) and chooses the precision.

        Args:
            loss_fn: pixels (B, C, H, W) -> loss of any shape; its sum is maximised.
            pixels: (B, C, H, W) in [0, 1].
            text_shape, levels: for attacks on text nodes and tree levels; not used here.
        """
        pixels = attackable(pixels)
        delta = self.start(pixels, generator)
        velocity = torch.zeros_like(delta)
        for step in range(self.num_steps):
            delta.requires_grad_()
            (gradient,) = input_gradients(loss_fn(pixels + delta), [delta])
            delta, velocity = self.ascend(delta, gradient, velocity, pixels, step)
        return [Perturbation((pixels + delta).detach())]

    @property
    def default_step_size(self) -> float:
        return self.threat.eps / 4

    def start(self, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
        """Initial perturbation (B, C, H, W), inside the threat model."""
        delta = torch.zeros_like(pixels, dtype=torch.float32)
        if self.random_start == "gaussian":
            delta.normal_(std=1e-3, generator=generator)
        elif self.random_start == "uniform" and self.threat.norm == "linf":
            delta.uniform_(-self.threat.eps, self.threat.eps, generator=generator)
        elif self.random_start == "uniform":
            # Uniform in the ball: a random direction at a radius eps * u^(1/d).
            delta.normal_(generator=generator)
            radius = torch.rand(len(delta), 1, 1, 1, device=delta.device, generator=generator)
            delta = self.threat.ascent(delta) * self.threat.eps * radius ** (1 / delta[0].numel())
        return self.threat.project(delta, pixels)

    def ascend(self, delta: Tensor, gradient: Tensor, velocity: Tensor, pixels: Tensor, step: int):
        """One projected step; returns the new perturbation (detached) and velocity."""
        if self.momentum:
            gradient = velocity = self.momentum * velocity + unit(gradient, order=1)
        direction = self.threat.ascent(gradient)
        size = self.default_step_size if self.step_size is None else self.step_size
        done = step / self.num_steps
        size *= {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[
            self.schedule
        ]
        return self.threat.project(delta.detach() + size * direction, pixels).detach(), velocity


@torch.no_grad()
def _fooled(model, search_model, logits: Tensor, adversarial: Tensor, labels: Tensor, last: bool) -> Tensor:
    """Misclassified according to ``model``: a low-precision search only proposes.

    ``model`` judges every last iterate, so that a robust image's adversarial is one that it gets right.
    """
    fooled = misclassified(logits.detach(), labels)
    if search_model is model:
        return fooled
    asked = fooled | last
    if asked.any():
        fooled[asked] = misclassified(model(adversarial[asked].detach()), labels[asked])
    return fooled
