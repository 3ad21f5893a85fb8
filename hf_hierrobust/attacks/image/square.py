"""Square attack (Andriushchenko et al., 1912.00049): random search without gradients, in linf and l2."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from ...options import check_between, check_choice, check_counts, check_flag
from .base import ATTACKS, Attack
from .criteria import cross_entropy, twins
from .victim import Victim

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries after which the windows' share of the image is halved."""


@ATTACKS.register
@dataclass(kw_only=True)
class Square(Attack):
    """Tries random windows of the perturbation at the corners of the ball and keeps what lowers the margin.

    One window a query, the same for all images, with the numbers drawn in the order of the official code. A
    proposal that would change nothing in an image, or that was tried on the same state before, costs no
    forward pass and counts as a query.

    Args:
        eps, norm, space: see `PixelAttack`.
        num_queries: proposals of a restart, after the first one of stripes or tiles.
        restarts: runs, each on the images that survived the earlier ones.
        p_init: share of the image that the first windows cover.
        loss: ``"margin"`` or ``"ce"``.
        skip: leave forward passes out whose answer is known; off, every query asks the network (the verdicts
            are the same, the time is not).
    """

    name: ClassVar[str] = "square"
    sight: ClassVar[str] = "black-box"
    num_queries: int = 5000
    restarts: int = 1
    p_init: float = 0.8
    loss: str = "margin"
    skip: bool = True

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "num_queries", "restarts")
        check_between(self, "p_init", 0, 1)
        check_choice(self, "loss", ("margin", "ce"))
        check_flag(self, "skip")

    def run(
        self, victim: Victim, pixels: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        found = pixels.clone()
        standing = torch.arange(len(pixels), device=pixels.device)
        with torch.no_grad():
            same = twins(victim.logits(pixels), labels)
            for _ in range(self.restarts):
                if len(standing) == 0:
                    break
                search = _LinfSearch if self.norm == "linf" else _L2Search
                run = search(self, victim, pixels[standing], labels[standing], same[standing], generator)
                points, fooled = run.go()
                victim.note(points, labels[standing])
                found[standing] = points
                standing = standing[~fooled]
        return found


class _Search:
    """One run of the random search: the best point of each image that still stands."""

    def __init__(
        self,
        attack: Square,
        victim: Victim,
        pixels: Tensor,
        labels: Tensor,
        same: Tensor,
        generator: torch.Generator | None,
    ):
        self.attack, self.victim, self.generator = attack, victim, generator
        self.clean, self.labels, self.same = pixels, labels, same
        self.rows = torch.arange(len(pixels), device=pixels.device)
        self.points = torch.empty_like(pixels)
        self.fooled = torch.zeros(len(pixels), dtype=torch.bool, device=pixels.device)

    def go(self) -> tuple[Tensor, Tensor]:
        """The best point of each image (N, C, H, W), and whether it fools, (N,)."""
        self.x = self.first()
        self.score, wrong = self.ask(self.x, self.labels, self.same)
        self.changed = torch.full_like(self.rows, -1)
        self.leave(wrong)
        for query in range(self.attack.num_queries):
            if len(self.rows) == 0:
                break
            self.query(query)
        self.points[self.rows] = self.x
        return self.points, self.fooled

    def first(self) -> Tensor:
        """Points before the first query."""
        raise NotImplementedError

    def query(self, number: int) -> None:
        """One proposal to all images."""
        raise NotImplementedError

    def ask(self, x: Tensor, labels: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
        """What is to be lowered (B,), and whether the points fool, (B,)."""
        logits = self.victim.logits(x)
        wrong = self.victim.fooled(x, labels, logits)
        if self.attack.loss == "ce":
            return -cross_entropy(logits, labels), wrong
        true = logits.gather(1, labels[:, None])
        others = logits.scatter(1, labels[:, None], -torch.inf).masked_fill(same, -torch.inf)
        return true[:, 0] - others.amax(1), wrong

    def leave(self, wrong: Tensor) -> None:
        """Images that are fooled leave with their points."""
        if not wrong.any():
            return
        gone, stay = self.rows[wrong], ~wrong
        self.points[gone], self.fooled[gone] = self.x[wrong], True
        for name in ("rows", "x", "clean", "labels", "same", "score", "changed"):
            setattr(self, name, getattr(self, name)[stay])

    def share(self, number: int) -> float:
        """Pixels of a window at this query."""
        area = self.clean.shape[-1] * self.clean.shape[-2]
        return self.attack.p_init / 2 ** sum(number > at for at in HALVINGS) * area

    def draw(self, *shape: int) -> Tensor:
        device = self.clean.device if self.generator is None else self.generator.device
        return torch.rand(shape, generator=self.generator, device=device).to(self.clean.device)

    def signs(self, *shape: int) -> Tensor:
        return (2 * self.draw(*shape) - 1).sign()

    def corner(self, side: int) -> tuple[slice, slice]:
        """Rows and columns of a random window."""
        height, width = self.clean.shape[-2:]
        top, left = (int(self.draw(1) * (edge - side)) for edge in (height, width))
        return slice(top, top + side), slice(left, left + side)


class _LinfSearch(_Search):
    """Windows whose channels lie at one end of the ball each."""

    def first(self) -> Tensor:
        self.tried: dict[tuple, int] = {}
        images, channels, _, width = self.clean.shape
        signs = self.signs(images, channels, 1, width)  # stripes
        return torch.where(signs > 0, *self.ends(self.clean))

    def ends(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        eps = self.attack.threat.eps
        return (pixels + eps).clamp(max=1), (pixels - eps).clamp(min=0)

    def query(self, number: int) -> None:
        height, width = self.clean.shape[-2:]
        side = min(max(round(math.sqrt(self.share(number))), 1), height, width)
        rows, columns = self.corner(side)
        signs = self.signs(self.clean.shape[1], 1, 1)
        old = self.x[:, :, rows, columns].clone()
        new = torch.where(signs > 0, *self.ends(self.clean[:, :, rows, columns]))
        asked = torch.arange(len(self.rows), device=self.rows.device)
        if self.attack.skip:
            key = (rows.start, columns.start, side, *signs.flatten().tolist())
            last = self.tried.get(key, -2)
            asked = ((self.changed > last) & (new != old).flatten(1).any(1)).nonzero()[:, 0]
            self.tried[key] = number
            if len(asked) == 0:
                return
        self.x[:, :, rows, columns] = new
        whole = len(asked) == len(self.rows)
        x, labels, same = (v if whole else v[asked] for v in (self.x, self.labels, self.same))
        score, wrong = self.ask(x, labels, same)
        better = torch.zeros(len(self.rows), dtype=torch.bool, device=self.rows.device)
        better[asked] = (score < self.score[asked]) | wrong
        self.score[asked] = torch.minimum(score, self.score[asked])
        self.changed[better] = number
        self.x[:, :, rows, columns] = torch.where(better.view(-1, 1, 1, 1), new, old)
        self.leave(torch.zeros_like(better).index_fill(0, asked[wrong], True))


class _L2Search(_Search):
    """Windows of a bump and its negative, paid for by what a second window held."""

    def first(self) -> Tensor:
        delta = torch.zeros_like(self.clean)
        images, channels, height, width = delta.shape
        side = max(height // 5, 1)
        edge = max((height - 5 * side) // 2, 0)
        for row in range(height // side):
            for column in range(width // side):
                top, left = edge + row * side, edge + column * side
                tile = self.bumps(side) * self.signs(images, channels, 1, 1)
                place = delta[:, :, top : top + side, left : left + side]
                place += tile[:, :, : place.shape[2], : place.shape[3]]
        return self.on_the_rim(delta)

    def on_the_rim(self, delta: Tensor) -> Tensor:
        size = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        return (self.clean + delta / (size + 1e-12) * self.attack.threat.eps).clamp(0, 1)

    def bumps(self, side: int) -> Tensor:
        """(1, 1, side, side) of norm 1, upright or turned by a draw."""
        both = torch.cat([_bump(side // 2, side), -_bump(side - side // 2, side)])
        both = both / both.norm()
        both = both.T if self.draw(1) > 0.5 else both
        return both.to(self.clean)[None, None]

    def query(self, number: int) -> None:
        images, channels, height, width = self.clean.shape
        side = max(round(math.sqrt(self.share(number))), 3)
        side = min(side + (side + 1) % 2, height, width)
        delta = self.x - self.clean
        to, source = self.corner(side), self.corner(side)
        old = delta[(..., *to)]
        mask = torch.zeros(height, width, device=delta.device)
        mask[to] = mask[source] = 1
        spare = (self.attack.threat.eps**2 - delta.flatten(1).pow(2).sum(1)).clamp(min=0).view(-1, 1, 1, 1)
        held = (delta * mask).pow(2).sum((2, 3), keepdim=True)
        new = self.bumps(side) * self.signs(images, channels, 1, 1)
        new = new + old / (1e-12 + old.pow(2).sum((2, 3), keepdim=True).sqrt())
        new = new / (1e-12 + new.pow(2).sum((2, 3), keepdim=True).sqrt()) * (spare / channels + held).sqrt()
        delta[(..., *source)] = 0
        delta[(..., *to)] = new
        x = self.on_the_rim(delta)
        score, wrong = self.ask(x, self.labels, self.same)
        better = (score < self.score) | wrong
        self.score = torch.minimum(score, self.score)
        self.x = torch.where(better.view(-1, 1, 1, 1), x, self.x)
        self.leave(wrong)


@lru_cache
def _bump(height: int, width: int) -> Tensor:
    """(height, width) of norm 1: rings around the centre that fall off with the square of their radius."""
    bump = torch.zeros(height, width)
    top, left = height // 2, width // 2
    for ring in range(max(top, left) + 1):
        rows = slice(max(top - ring, 0), min(top + ring + 1, height))
        bump[rows, max(left - ring, 0) : min(left + ring + 1, width)] += 1 / (ring + 1) ** 2
    return bump / bump.norm()
