"""What one stage of a job found on one batch, as a line of text, and what all stages come to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count, takewhile
from typing import NamedTuple

import torch
from torch import Tensor

from ..attacks import Cost
from .flags import pack_flags, unpack_flags

CLEAN = -1
"""The stage that judges the clean images; the others are numbered like the job's attacks."""


class Outcome(NamedTuple):
    """Per-image verdicts of one job, in the order of the data.

    Attributes:
        clean, robust: (N,) bool; robust implies clean.
        after: fraction of the N images that still stood after each attack, in their order.
        attacked: fraction of the N images that each attack saw.
        zero_gradient: fraction of those whose first gradient was exactly zero.
        cost: forwards and backwards per image, the clean forward included.
        seconds: of work, summed over processes and over the starts of an evaluation that was resumed.
        notes: of a job with a probe, its numbers (N, P) on the clean images and on what the last attack that
            saw them, or the one that its probe ranks highest, made of them.
        clean_cost, clean_seconds: the part of both that the verdicts on the clean images took.
    """

    clean: Tensor
    robust: Tensor
    after: tuple[float, ...]
    attacked: tuple[float, ...]
    zero_gradient: tuple[float, ...]
    cost: Cost
    seconds: float
    notes: tuple[Tensor, Tensor] | None = None
    clean_cost: Cost = Cost()
    clean_seconds: float = 0.0

    def unattacked(self) -> Outcome:
        """The verdicts on the clean images alone, and what they took."""
        return Outcome(self.clean, self.clean, (), (), (), self.clean_cost, self.clean_seconds)


class LineError(ValueError):
    """A line is not what was written: it is torn, or garbage."""


@dataclass(frozen=True)
class Stage:
    """One attack of one job on one batch, or the clean images of the batch.

    Attributes:
        batch, job: their numbers.
        attack: number of the attack among the job's, or `CLEAN`.
        flags: (B,) bool, the images that stand after it.
        attacked: how many it saw.
        zero: how many of those had an exactly zero first gradient.
        forwards, backwards: images passed, in all.
        seconds: of work.
        notes: P numbers for each image, of a job with a probe.
        probed: passes forward and back among these that were the probe's.
    """

    batch: int
    job: int
    attack: int
    flags: Tensor
    attacked: int = 0
    zero: float = 0.0
    forwards: float = 0.0
    backwards: float = 0.0
    seconds: float = 0.0
    notes: list[list[float]] | None = None
    probed: tuple[float, float] = (0.0, 0.0)

    def verdict(self) -> Stage:
        """The stage as another job with the same verdicts would have it: without this one's probe."""
        forwards, backwards = self.forwards - self.probed[0], self.backwards - self.probed[1]
        return replace(self, notes=None, probed=(0.0, 0.0), forwards=forwards, backwards=backwards)

    def follows(self, before: Stage) -> bool:
        """Whether this attack saw what the stage before left standing."""
        standing = self.attacked == int(before.flags.sum()) and len(self.flags) == len(before.flags)
        return standing and not bool((self.flags & ~before.flags).any())

    def line(self, scope: str = "") -> str:
        """The stage as one line of JSON with a digest of its own.

        Args:
            scope: which jobs it is about, where several lists of jobs share a file.
        """
        return sealed_line(
            vars(self) | {"scope": scope, "flags": pack_flags(self.flags), "images": len(self.flags)}
        )

    @classmethod
    def read(cls, line: str) -> tuple[str, Stage]:
        """Scope and stage of a line.

        Raises:
            LineError: its digest differs, or it has none.
        """
        entries = read_sealed(line)
        try:
            scope, images = entries.pop("scope"), entries.pop("images")
            return scope, cls(**entries | {"flags": unpack_flags(entries["flags"], images)})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise LineError(str(error)) from None


def sealed_line(entries: dict) -> str:
    """JSON values as one line with a digest of its own."""
    return json.dumps({**entries, "digest": _digest(entries)})


def read_sealed(line: str) -> dict:
    """What `sealed_line` was given.

    Raises:
        LineError: its digest differs, or it has none.
    """
    try:
        entries = json.loads(line)
        said = entries.pop("digest")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise LineError(str(error)) from None
    if said != _digest(entries):
        raise LineError("its digest differs")
    return entries


def _digest(entries: dict) -> str:
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()[:16]


def outcome_of(stages: Iterable[Stage], num_attacks: int) -> Outcome:
    """What all stages of one job come to, whichever process or start found them, in whatever order.

    Raises:
        ValueError: no batch.
    """
    # Sums of floats depend on their order.
    ordered = sorted(stages, key=lambda stage: (stage.batch, stage.attack))
    if not ordered:
        raise ValueError("batches is empty: there is nothing to evaluate")
    clean = torch.cat([stage.flags for stage in ordered if stage.attack == CLEAN])
    last = list({stage.batch: stage for stage in ordered}.values())
    robust = torch.cat([stage.flags for stage in last])
    attacked, standing, zero = ([0] * num_attacks for _ in range(3))
    for stage in ordered:
        if stage.attack != CLEAN:
            attacked[stage.attack] += stage.attacked
            standing[stage.attack] += int(stage.flags.sum())
            zero[stage.attack] += stage.zero
    total = len(clean)
    judged = [stage for stage in ordered if stage.attack == CLEAN]
    return Outcome(
        clean,
        robust,
        tuple(value / total for value in standing),
        tuple(value / total for value in attacked),
        tuple(value / max(seen, 1) for value, seen in zip(zero, attacked)),
        _cost(ordered, total),
        sum(stage.seconds for stage in ordered),
        _noted(judged, last),
        _cost([stage.verdict() for stage in judged], total),
        sum(stage.seconds for stage in judged),
    )


def _cost(stages: Sequence[Stage], images: int) -> Cost:
    return Cost(*(sum(getattr(stage, name) for stage in stages) / images for name in Cost._fields))


def _noted(clean: list[Stage], last: list[Stage]) -> tuple[Tensor, Tensor] | None:
    if any(stage.notes is None for stage in (*clean, *last)):
        return None
    before, after = (torch.tensor([row for stage in part for row in stage.notes]) for part in (clean, last))
    return before, after


class StageLog:
    """The stages found so far, in memory."""

    def __init__(self, stages: Iterable[Stage] = ()):
        self._stages: dict[tuple[int, int], dict[int, Stage]] = {}
        for stage in stages:
            self._keep(stage)

    def add(self, stage: Stage) -> None:
        """Note a stage."""
        self._keep(stage)

    def of(self, batch: int, job: int) -> list[Stage]:
        """Stages of a job on a batch, in their order, up to the first that is missing or does not follow."""
        found, stages = self._stages.get((batch, job), {}), []
        for number in takewhile(found.__contains__, count(CLEAN)):
            if stages and not found[number].follows(stages[-1]):
                break
            stages.append(found[number])
        return stages

    def _keep(self, stage: Stage) -> None:
        self._stages.setdefault((stage.batch, stage.job), {})[stage.attack] = stage
