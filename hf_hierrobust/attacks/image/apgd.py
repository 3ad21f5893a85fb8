"""Auto-PGD (Croce and Hein, 2003.01690): a step size that adapts, in linf and l2; untargeted and targeted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from ...options import check_between, check_counts, check_flag
from ...threat import ThreatModel
from .base import ATTACKS, Attack
from .criteria import AttackLoss, resolve_loss, targeted_dlr
from .targets import ranked_targets, warn_without_dlr
from .victim import Victim

MOMENTUM = 0.75
"""Weight of the new step against that of the last move, from the second step on."""


@ATTACKS.register
@dataclass(kw_only=True)
class APGD(Attack):
    """Gradient ascent with momentum that halves its step, and goes back to the best point, when it stalls.

    The numbers drawn and the order of operations are those of the official code. An image is broken by any
    iterate; it then leaves the batch. One that is not comes back as its iterate of the highest loss.

    Args:
        eps, norm, space: see `PixelAttack`.
        num_steps: gradient steps of a restart; the first has size ``2 eps``.
        restarts: random starts, each on the images that survived the earlier ones.
        loss: ``"ce"`` (float64), ``"dlr"``, ``"margin"``, or a callable (logits, labels) -> (B,).
        rho: share of the steps since the last check that must raise the loss, or the step is halved.
        eot: gradients averaged at each point, for classifiers that draw random numbers.
        early_stop: let images leave once they are broken; off, every image takes all steps (the verdicts
            are the same, the time is not).
    """

    name: ClassVar[str] = "apgd"
    num_steps: int = 100
    restarts: int = 1
    loss: str | AttackLoss = "ce"
    rho: float = 0.75
    eot: int = 1
    early_stop: bool = True

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "num_steps", "restarts", "eot")
        check_between(self, "rho", 0, 1)
        check_flag(self, "early_stop")
        resolve_loss(self.loss)

    def run(
        self, victim: Victim, pixels: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        found = pixels.clone()
        standing = torch.arange(len(pixels), device=pixels.device)
        for target in self.targets(victim, pixels, labels):
            for _ in range(self.restarts):
                if len(standing) == 0:
                    return found
                aimed = None if target is None else target[standing]
                best, fooled = self._climb(victim, pixels[standing], labels[standing], aimed, generator)
                found[standing] = best
                standing = standing[~fooled]
        return found

    def targets(self, victim: Victim, pixels: Tensor, labels: Tensor) -> Iterator[Tensor | None]:
        """A class an image (N,) to aim at, one run after the other; None: away from the label."""
        yield None

    def value(self, logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
        """What is maximised, one value an image (B,)."""
        if self.loss == "dlr":
            warn_without_dlr(logits.shape[1], 3)
        return resolve_loss(self.loss)(logits, labels)

    def _climb(
        self,
        victim: Victim,
        pixels: Tensor,
        labels: Tensor,
        targets: Tensor | None,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        """One run from one random start: a point (N, C, H, W) an image, and whether it fools, (N,)."""
        points = torch.empty_like(pixels)
        fooled = torch.zeros(len(pixels), dtype=torch.bool, device=pixels.device)
        run = _Run.at(spread_start(self.threat, pixels, generator), self.threat, pixels, labels, targets)

        def look(slope: bool) -> bool:
            """Ask about the points; True once no image is left."""
            self._look(victim, run, slope)
            new = run.wrong & ~fooled[run.rows]
            if new.any():
                points[run.rows[new]] = run.x[new]
                fooled[run.rows[new]] = True
                if self.early_stop:
                    run.keep(~new)
            return len(run.rows) == 0

        if look(slope=True):
            return points, fooled
        run.best_loss = run.best_at_check = run.loss
        run.best, run.best_slope = run.x, run.slope
        period, least = (max(int(share * self.num_steps), 1) for share in (0.22, 0.06))
        waited = 0
        for step in range(self.num_steps):
            run.x, run.before = self._step(run, MOMENTUM if step else 1.0), run.x
            if look(slope=step < self.num_steps - 1):
                break
            run.note()
            waited += 1
            if waited == period:
                run.check(self.rho * period)
                waited, period = 0, max(period - max(int(0.03 * self.num_steps), 1), least)
        left = ~fooled[run.rows]
        points[run.rows[left]] = run.best[left]
        return points, fooled

    def _look(self, victim: Victim, run: _Run, slope: bool) -> None:
        """Loss, gradient where it is wanted, and verdict at the current points."""
        x = run.x.detach().requires_grad_(slope)
        gradient = 0
        for _ in range(self.eot if slope else 1):
            with torch.set_grad_enabled(slope):
                logits = victim.logits(x)
                loss = self.value(logits, run.labels, run.targets)
            if slope:
                gradient = gradient + victim.gradient(loss, x)
        run.x, run.loss = x.detach(), loss.detach()
        run.slope = gradient / self.eot if slope else run.slope
        run.wrong = victim.fooled(run.x, run.labels, logits.detach())

    def _step(self, run: _Run, weight: float) -> Tensor:
        x, momentum = run.x, run.x - run.before
        size = run.size.view(-1, 1, 1, 1)
        there = run.project(x + size * self.threat.ascent(run.slope), self.threat)
        return run.project(x + (there - x) * weight + momentum * (1 - weight), self.threat)


@ATTACKS.register
@dataclass(kw_only=True)
class TargetedAPGD(APGD):
    """APGD on the targeted DLR loss, one run for each of the best wrong classes of the clean image.

    Args:
        eps, norm, space: see `PixelAttack`.
        num_steps, restarts, rho, eot, early_stop: see `APGD`; steps and restarts are those of each target.
        num_targets: classes to aim at, 9 in AutoAttack; with fewer wrong classes, all of them.
    """

    name: ClassVar[str] = "apgd-t"
    sight: ClassVar[str] = "targeted"
    num_targets: int = 9
    loss: str | AttackLoss = "dlr"

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "num_targets")
        if self.loss != "dlr":
            raise ValueError(f"loss={self.loss!r} has no effect: apgd-t raises the targeted DLR loss")

    def targets(self, victim: Victim, pixels: Tensor, labels: Tensor) -> Iterator[Tensor]:
        with torch.no_grad():
            logits = victim.logits(pixels)
        warn_without_dlr(logits.shape[1], 4)
        yield from ranked_targets(logits, labels, self.num_targets).T

    def value(self, logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        return targeted_dlr(logits, labels, targets)


def spread_start(threat: ThreatModel, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
    """Random points on the rim of the ball: in linf at least one pixel of each image is at ``eps``."""
    device = pixels.device if generator is None else generator.device
    draw = torch.rand if threat.norm == "linf" else torch.randn
    noise = draw(pixels.shape, generator=generator, device=device).to(pixels)
    noise = 2 * noise - 1 if threat.norm == "linf" else noise
    size = threat.size(noise).view(-1, 1, 1, 1)
    return (pixels + threat.eps * (noise / (size + 1e-12))).clamp(0, 1)


@dataclass(kw_only=True)
class _Run:
    """What a run knows of each image it still works on; the first dimension of all tensors is theirs."""

    rows: Tensor
    pixels: Tensor
    labels: Tensor
    targets: Tensor | None
    low: Tensor | None
    high: Tensor | None
    x: Tensor
    before: Tensor
    size: Tensor
    rises: Tensor
    last: Tensor
    halved: Tensor
    loss: Tensor | None = None
    slope: Tensor | None = None
    wrong: Tensor | None = None
    best: Tensor | None = None
    best_slope: Tensor | None = None
    best_loss: Tensor | None = None
    best_at_check: Tensor | None = None

    @classmethod
    def at(
        cls, x: Tensor, threat: ThreatModel, pixels: Tensor, labels: Tensor, targets: Tensor | None
    ) -> _Run:
        zeros = torch.zeros(len(pixels), dtype=torch.float64, device=pixels.device)
        box = threat.norm == "linf"
        return cls(
            rows=torch.arange(len(pixels), device=pixels.device),
            pixels=pixels,
            labels=labels,
            targets=targets,
            low=(pixels - threat.eps).clamp(min=0) if box else None,
            high=(pixels + threat.eps).clamp(max=1) if box else None,
            x=x,
            before=x,
            size=torch.full_like(zeros, 2 * threat.eps, dtype=pixels.dtype),
            rises=zeros,
            last=zeros,  # the official code compares the first loss with 0 too
            halved=torch.ones_like(zeros, dtype=torch.bool),
        )

    def keep(self, mask: Tensor) -> None:
        """Leave only these images."""
        for one in fields(self):
            value = getattr(self, one.name)
            if value is not None:
                setattr(self, one.name, value[mask])

    def project(self, x: Tensor, threat: ThreatModel) -> Tensor:
        if self.low is not None:
            return x.clamp(self.low, self.high)
        return self.pixels + threat.project(x - self.pixels, self.pixels)

    def note(self) -> None:
        """Remember the current points where they are the best so far, and whether the loss rose."""
        self.rises = self.rises + (self.loss > self.last)
        self.last = self.loss
        better = self.loss > self.best_loss
        wide = better.view(-1, 1, 1, 1)
        self.best = torch.where(wide, self.x, self.best)
        self.best_slope = torch.where(wide, self.slope, self.best_slope)
        self.best_loss = torch.where(better, self.loss, self.best_loss)

    def check(self, enough: float) -> None:
        """Halve the step, and go back to the best point, where the loss has stalled."""
        stalled = (self.rises <= enough) | (~self.halved & (self.best_at_check >= self.best_loss))
        self.size = torch.where(stalled, self.size / 2, self.size)
        wide = stalled.view(-1, 1, 1, 1)
        self.x = torch.where(wide, self.best, self.x)
        self.slope = torch.where(wide, self.best_slope, self.slope)
        self.halved, self.best_at_check = stalled, self.best_loss
        self.rises = torch.zeros_like(self.rises)
