"""Fast adaptive boundary attack (Croce and Hein, 1907.02044): the smallest perturbation, in linf and l2."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...options import check_between, check_counts, check_flag, check_numbers
from .apgd import spread_start
from .base import ATTACKS, Attack
from .criteria import misclassified, twins
from .hyperplane import to_hyperplane
from .targets import ranked_targets
from .victim import Victim


@ATTACKS.register
@dataclass(kw_only=True)
class FAB(Attack):
    """Walks along linearised decision boundaries, drawn towards the clean image, and keeps the closest point.

    An image comes back as its closest misclassified point, or where the walk ended; what lies outside the
    ball is projected and judged by the frame. All K - 1 boundaries are linearised at each step, with a
    backward pass each: with many classes use `TargetedFAB`.

    Args:
        eps, norm, space: see `PixelAttack`; ``eps`` is what ends the search, not what it looks for.
        num_steps: linearisations of a restart.
        restarts: the first starts at the clean image, the others at random within ``eps / 2``.
        alpha_max: largest weight of the step from the clean image against that from the current point.
        eta: overshoot of both steps beyond the boundary.
        beta: a misclassified point is drawn back to this share of its distance.
        early_stop: let images leave once a misclassified point lies in the ball; off, the search for the
            closest one goes on.
    """

    name: ClassVar[str] = "fab"
    num_steps: int = 100
    restarts: int = 1
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    early_stop: bool = True

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "num_steps", "restarts")
        check_numbers(self, "eta", positive=True)
        check_between(self, "alpha_max", 0, 1)
        check_between(self, "beta", 0, 1)
        check_flag(self, "early_stop")

    def run(
        self, victim: Victim, pixels: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        found = pixels.clone()
        size = torch.full_like(pixels[:, 0, 0, 0], torch.inf)
        with torch.no_grad():
            logits = victim.logits(pixels)
        for others in self.others(logits, labels):
            for restart in range(self.restarts):
                rows = ((size > self.threat.eps) | (not self._stops(victim))).nonzero()[:, 0]
                if len(rows) == 0:
                    return found
                start = self._start(pixels[rows], generator) if restart else pixels[rows]
                self._walk(victim, start, pixels, labels, others, rows, found, size)
        return found

    def others(self, logits: Tensor, labels: Tensor) -> Iterator[Tensor]:
        """Classes (N, C) whose boundaries are linearised, one run after the other; -1 leaves one out.

        Args:
            logits: (N, K), of the clean images.
        """
        classes = torch.arange(logits.shape[1] - 1, device=labels.device)
        classes = classes + (classes >= labels[:, None])
        left_out = twins(logits, labels).gather(1, classes)
        yield classes.masked_fill(left_out, -1).gather(1, left_out.long().argsort(stable=True))

    def _stops(self, victim: Victim) -> bool:
        return self.early_stop and victim.tells

    def _start(self, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
        noise = spread_start(self.threat, torch.full_like(pixels, 0.5), generator) - 0.5
        return (pixels + noise / 2).clamp(0, 1)

    def _walk(
        self,
        victim: Victim,
        x: Tensor,
        pixels: Tensor,
        labels: Tensor,
        others: Tensor,
        rows: Tensor,
        found: Tensor,
        size: Tensor,
    ) -> None:
        """One run of the images ``rows`` from ``x``; ``found`` and ``size`` are the closest points so far."""
        threat, clean, truth, others = self.threat, pixels[rows], labels[rows], others[rows]
        for _ in range(self.num_steps):
            height, normal = self._boundary(victim, x, truth, others)
            from_x, from_clean = self._moves(x, clean, normal, height)
            near, far = (threat.size(move).clamp(min=1e-8) for move in (from_x, from_clean))
            weight = (near / (near + far)).clamp(max=self.alpha_max).view(-1, 1, 1, 1)
            x = (x + self.eta * from_x) * (1 - weight) + (clean + self.eta * from_clean) * weight
            x = x.clamp(0, 1)
            with torch.no_grad():
                logits = victim.logits(x)
                # The walk goes by the side of the boundary that it is on. Most points are beyond it and far
                # away: the classifier's own verdict is asked for those alone that would be kept.
                wrong = misclassified(logits, truth)
                if not victim.tells:
                    victim.fooled(x, truth, logits)
            if not wrong.any():
                continue
            distance = threat.size(x - clean)
            closer = wrong & (distance < size[rows])
            if victim.tells and closer.any():
                asked = closer.clone()
                closer[asked] = victim.fooled(x[asked], truth[asked], logits[asked])
                wrong &= closer | ~asked
            found[rows[closer]], size[rows[closer]] = x[closer], distance[closer]
            x = torch.where(wrong.view(-1, 1, 1, 1), clean + (x - clean) * self.beta, x)
            stay = size[rows] > threat.eps
            if self._stops(victim) and not stay.all():
                rows, x, clean, truth, others = (v[stay] for v in (rows, x, clean, truth, others))
                if len(rows) == 0:
                    return
        nowhere = size[rows].isinf()
        found[rows[nowhere]] = x[nowhere]

    def _boundary(self, victim: Victim, x: Tensor, labels: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """``z_c - z_y`` (B,) and its gradient (B, C, H, W) for the class with the nearest boundary."""
        x = x.detach().requires_grad_()
        logits = victim.logits(x)
        gaps = logits.gather(1, others.clamp(min=0)) - logits.gather(1, labels[:, None])
        # Of a float64 network too the walk goes on in the type of the pixels.
        heights = gaps.detach().to(x)
        nearest, height, normal = None, heights[:, 0], None
        for column in range(others.shape[1]):
            last = column == others.shape[1] - 1
            gradient = victim.gradient(gaps[:, column], x, retain_graph=not last)
            if others.shape[1] == 1:
                return height, gradient
            flat = gradient.flatten(1)
            slope = flat.abs().sum(1) if self.norm == "linf" else flat.norm(dim=1)
            gap = heights[:, column]
            distance = (gap.abs() / (1e-12 + slope)).masked_fill(others[:, column] < 0, torch.inf)
            if nearest is None:
                nearest, normal = distance, gradient
                continue
            nearer = distance < nearest
            nearest, height = torch.where(nearer, distance, nearest), torch.where(nearer, gap, height)
            normal = torch.where(nearer.view(-1, 1, 1, 1), gradient, normal)
        return height, normal

    def _moves(self, x: Tensor, clean: Tensor, normal: Tensor, height: Tensor) -> tuple[Tensor, Tensor]:
        """The smallest moves onto the boundary, from ``x`` and from the clean image."""
        w, here, there = normal.flatten(1), x.flatten(1), clean.flatten(1)
        heights = torch.cat([height, height + (w * (there - here)).sum(1)])
        moves = to_hyperplane(torch.cat([here, there]), torch.cat([w, w]), heights, self.norm)
        from_x, from_clean = moves.view(2, *x.shape)
        return from_x, from_clean


@ATTACKS.register
@dataclass(kw_only=True)
class TargetedFAB(FAB):
    """FAB towards one of the best wrong classes of the clean image after the other.

    Args:
        eps, norm, space: see `PixelAttack`.
        num_steps, restarts, alpha_max, eta, beta, early_stop: see `FAB`; steps and restarts are those of each
            target.
        num_targets: classes to aim at, 9 in AutoAttack; with fewer wrong classes, all of them.
    """

    name: ClassVar[str] = "fab-t"
    sight: ClassVar[str] = "targeted"
    num_targets: int = 9

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "num_targets")

    def others(self, logits: Tensor, labels: Tensor) -> Iterator[Tensor]:
        yield from ranked_targets(logits, labels, self.num_targets).T[:, :, None]
