"""Start, ascend, project: the parts of every iterative attack on pixels, in evaluation and in training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...options import check_choice, check_counts, check_numbers
from ...threat import ThreatModel, parse_eps, unit
from ..base import PixelAttack

Start = Literal["uniform", "gaussian", "zero"]
Schedule = Literal["constant", "linear", "cosine"]


def start(threat: ThreatModel, pixels: Tensor, kind: Start, generator: torch.Generator | None) -> Tensor:
    """Initial perturbation (B, C, H, W), allowed by the threat model.

    Args:
        kind: ``"uniform"`` in the ball, ``"gaussian"`` 0.001 N(0, I), or ``"zero"``.
        generator: its device is where the numbers are drawn: one on the CPU gives every device the same.
    """
    device = pixels.device if generator is None else generator.device
    delta = torch.zeros(pixels.shape, dtype=torch.float32, device=device)
    if kind == "gaussian":
        delta.normal_(std=1e-3, generator=generator)
    elif kind == "uniform" and threat.norm == "linf":
        delta.uniform_(-threat.eps, threat.eps, generator=generator)
    elif kind == "uniform":
        # Uniform in the ball: a random direction at a radius eps * u^(1/d).
        delta.normal_(generator=generator)
        radius = torch.rand(len(delta), 1, 1, 1, dtype=torch.float32, device=device, generator=generator)
        delta = threat.ascent(delta) * threat.eps * radius ** (1 / delta[0].numel())
    return threat.project(delta.to(pixels.device), pixels)


def ascend(threat: ThreatModel, delta: Tensor, gradient: Tensor, pixels: Tensor, size: float) -> Tensor:
    """One projected step of this size along the norm's steepest ascent; the result is detached."""
    return threat.project(delta.detach() + size * threat.ascent(gradient), pixels).detach()


def shrink(schedule: Schedule, step: int, num_steps: int) -> float:
    """Factor on the size of step ``step``, counted from 0."""
    done = step / num_steps
    return {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[schedule]


@dataclass(kw_only=True)
class SteppedAttack(PixelAttack):
    """Options of attacks that walk along gradients; a subclass names its default step.

    Args:
        eps, norm, space: see `PixelAttack`.
        num_steps: gradient steps (per restart).
        step_size: in pixel scale, ``"1/255"`` is accepted; None takes the class's own fraction of eps.
        random_start: ``"uniform"`` in the ball, ``"gaussian"`` 0.001 N(0, I) (sister papers' convention,
            OC-10), or ``"zero"``.
        momentum: decay of the accumulated gradient, each divided by its L1 norm (MI-FGSM, 1710.06081); 0
            switches it off.
        schedule: how the step size shrinks over the steps: not at all, linearly or by a cosine.
    """

    num_steps: int = 20
    step_size: float | str | None = None
    random_start: Start = "uniform"
    momentum: float = 0.0
    schedule: Schedule = "constant"

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "num_steps")
        if self.step_size is not None:
            self.step_size = parse_eps(self.step_size, "step_size", self.norm)
        check_numbers(self, "momentum")
        check_choice(self, "random_start", ("uniform", "gaussian", "zero"))
        check_choice(self, "schedule", ("constant", "linear", "cosine"))

    @property
    def default_step_size(self) -> float:
        raise NotImplementedError

    @property
    def step(self) -> float:
        """Size of the first step, in pixel scale."""
        return self.default_step_size if self.step_size is None else self.step_size

    def start(self, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
        """Initial perturbation (B, C, H, W), inside the threat model."""
        return start(self.threat, pixels, self.random_start, generator)

    def ascend(
        self, delta: Tensor, gradient: Tensor, velocity: Tensor, pixels: Tensor, step: int
    ) -> tuple[Tensor, Tensor]:
        """One projected step; returns the new perturbation (detached) and velocity."""
        if self.momentum:
            gradient = velocity = self.momentum * velocity + unit(gradient, order=1)
        size = self.step * shrink(self.schedule, step, self.num_steps)
        return ascend(self.threat, delta, gradient, pixels, size), velocity

    def describe(self) -> dict:
        """The attack's constants; the step is the one that is taken."""
        return super().describe() | {"step_size": self.step}
