"""The evaluation engine: all jobs on each batch, decoded once, each attack on the images still standing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from ..attacks import Attack, Cost, Victim, misclassified
from ..attacks.base import attackable, check_labels
from ..classifiers import frozen


@dataclass(frozen=True, kw_only=True)
class Job:
    """One classifier under the attacks of one budget.

    Args:
        classifier: pixels (B, 3, H, W) in [0, 1] -> logits (B, K), in fp32: its verdicts decide.
        attacks: in the order given; later ones see only the survivors of the earlier ones.
        to_class: (C,) class of each label, e.g. a tree's ancestors at some level; None: the labels.
        search: cheaper callable for gradients, such as the same model under bf16.
        title: what a progress bar calls it.
    """

    classifier: Callable[[Tensor], Tensor]
    attacks: Sequence[Attack]
    to_class: Tensor | None = None
    search: Callable[[Tensor], Tensor] | None = None
    title: str = ""


class Outcome(NamedTuple):
    """Per-image verdicts of one job, in the order of the data.

    Attributes:
        clean, robust: (N,) bool; robust implies clean.
        after: fraction of the N images that still stood after each attack, in their order.
        attacked: fraction of the N images that each attack saw.
        zero_gradient: fraction of those whose first gradient was exactly zero.
        cost: forwards and backwards per image, the clean forward included.
        seconds: wall time.
    """

    clean: Tensor
    robust: Tensor
    after: tuple[float, ...]
    attacked: tuple[float, ...]
    zero_gradient: tuple[float, ...]
    cost: Cost
    seconds: float


def judge(classifier: Callable[[Tensor], Tensor], pixels: Tensor, labels: Tensor) -> Tensor:
    """Whether each image is classified correctly, (B,) bool, in evaluation mode and its own precision.

    Raises:
        NanError: NaN among the logits of any image; its arg-max would be a verdict about nothing.
        ValueError: labels that are not one class an image.
    """
    # One verdict on an image, whatever mode the model is in and whatever autocast surrounds the call.
    with frozen(classifier), torch.no_grad(), torch.autocast(pixels.device.type, enabled=False):
        logits = Victim(classifier).logits(pixels)
    return ~misclassified(logits, check_labels(labels, *logits.shape, device=logits.device))


def run_jobs(
    jobs: Sequence[Job],
    batches: Iterable[dict[str, Tensor]],
    *,
    device: torch.device | str = "cpu",
    seed: int = 0,
    advance: Callable[[Job, int, float], None] | None = None,
) -> list[Outcome]:
    """Run all jobs on each batch before the next one is read.

    The clean images are judged once for each classifier. Random starts are drawn anew for each batch and
    attack, for the images still standing, from ``seed`` alone: the other jobs have no part in them.

    Args:
        batches: ``{"pixels", "labels"}``, e.g. a DataLoader with `PixelCollator`.
        advance: told after each job and batch: the job, the number of images, its robust accuracy so far.

    Raises:
        NanError: see `judge`.
        ValueError: no batches.
    """
    tallies = [_Tally(len(job.attacks)) for job in jobs]
    for index, batch in enumerate(batches):
        pixels, labels = attackable(batch["pixels"].to(device)), batch["labels"].to(device)
        judged: dict[tuple[int, int], Tensor] = {}
        for job, tally in zip(jobs, tallies):
            start = time.perf_counter()
            truth = labels
            if job.to_class is not None:  # where -1 would pick the last class's
                truth = job.to_class.to(device)[check_labels(labels, len(pixels), len(job.to_class), device)]
            key = (id(job.classifier), id(job.to_class))
            if key not in judged:
                judged[key] = judge(job.classifier, pixels, truth)
            _attack_batch(job, pixels, truth, judged[key], index, seed, tally)
            tally.seconds += time.perf_counter() - start
            if advance is not None:
                advance(job, len(labels), float(torch.cat(tally.robust).float().mean()))
    if tallies and not tallies[0].clean:
        raise ValueError("batches is empty: there is nothing to evaluate")
    return [tally.outcome() for tally in tallies]


def attack_classifier(
    classifier: Callable[[Tensor], Tensor],
    batches: Iterable[dict[str, Tensor]],
    attacks: Sequence[Attack],
    *,
    to_class: Tensor | None = None,
    search: Callable[[Tensor], Tensor] | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> Outcome:
    """Attack every image with every attack; an image is robust if none of them succeeds. See `run_jobs`."""
    job = Job(classifier=classifier, attacks=attacks, to_class=to_class, search=search)
    return run_jobs([job], batches, device=device, seed=seed)[0]


def _attack_batch(
    job: Job, pixels: Tensor, labels: Tensor, clean: Tensor, index: int, seed: int, tally: _Tally
) -> None:
    alive = clean.clone()
    tally.forwards += len(clean)
    for number, attack in enumerate(job.attacks):
        rows = alive.nonzero()[:, 0]
        if len(rows) == 0:
            break  # nothing stands after the later attacks either
        generator = torch.Generator(pixels.device).manual_seed(seed + 1_000_003 * index + 7919 * number)
        result = attack(
            job.classifier,
            pixels[rows],
            labels[rows],
            search=job.search,
            generator=generator,
            clean_correct=alive[rows],
        )
        alive[rows] = result.robust_correct
        tally.attacked[number] += len(rows)
        tally.standing[number] += int(alive.sum())
        tally.zero[number] += result.zero_gradient * len(rows)
        tally.forwards += result.cost.forwards * len(rows)
        tally.backwards += result.cost.backwards * len(rows)
    tally.clean.append(clean.cpu())
    tally.robust.append(alive.cpu())


@dataclass
class _Tally:
    """Counts of one job over the batches so far."""

    num_attacks: int
    clean: list[Tensor] = field(default_factory=list)
    robust: list[Tensor] = field(default_factory=list)
    forwards: float = 0.0
    backwards: float = 0.0
    seconds: float = 0.0

    def __post_init__(self):
        self.attacked, self.standing, self.zero = ([0] * self.num_attacks for _ in range(3))

    def outcome(self) -> Outcome:
        clean, robust = torch.cat(self.clean), torch.cat(self.robust)
        count = len(clean)
        after, attacked = (tuple(v / count for v in values) for values in (self.standing, self.attacked))
        zero = tuple(zero / max(seen, 1) for zero, seen in zip(self.zero, self.attacked))
        cost = Cost(self.forwards / count, self.backwards / count)
        return Outcome(clean, robust, after, attacked, zero, cost, self.seconds)
