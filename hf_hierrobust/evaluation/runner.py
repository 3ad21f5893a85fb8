"""The evaluation engine: all jobs on each batch, decoded once, each attack on the images still standing."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import NamedTuple

import torch
from torch import Tensor

from ..attacks import Attack, misclassified
from ..attacks.base import attackable, check_labels, refuse_nan
from ..classifiers import frozen, parts_of, passes_of, read_logits, shared_logits
from .plan import attack_labels, check_seedless
from .shards import Shards
from .verdicts import CLEAN, Outcome, Stage, StageLog, outcome_of


@dataclass(frozen=True, kw_only=True)
class Job:
    """One classifier under the attacks of one budget.

    Args:
        classifier: pixels (B, 3, H, W) in [0, 1] -> logits (B, K), in fp32: its verdicts decide.
        attacks: in the order given; later ones see only the survivors of the earlier ones.
        to_class: (C,) class of each label, e.g. a tree's ancestors at some level; None: the labels.
        search: cheaper callable for gradients, such as the same model under bf16.
        title: what a progress bar calls it.
        probe: pixels (B, 3, H, W) and their classes (B,) -> (B, P) numbers, which are noted of every image
            when clean and as the attacks leave it. It counts as one forward an image, or has ``passes``. With
            ``ranks`` an image keeps the numbers of the attack after which the last one is largest, instead of
            the last attack's.
    """

    classifier: Callable[[Tensor], Tensor]
    attacks: Sequence[Attack]
    to_class: Tensor | None = None
    search: Callable[[Tensor], Tensor] | None = None
    title: str = ""
    probe: Callable[[Tensor, Tensor], Tensor] | None = None

    def __post_init__(self):
        check_seedless(self.attacks)


DONE, KNOWN = "done", "of an earlier start"
"""What `Progress` says of a batch that is finished, now or before."""


class Progress(NamedTuple):
    """Where an evaluation is.

    Attributes:
        job: the one at work.
        stage: ``"clean"`` or the name of the attack that starts now; `DONE` or `KNOWN` after a batch.
        images: how many this job has just finished with.
        clean, robust: its accuracies so far, on the images it has seen.
    """

    job: Job
    stage: str
    images: int
    clean: float
    robust: float


def judge(classifier: Callable[[Tensor], Tensor], pixels: Tensor, labels: Tensor) -> Tensor:
    """Whether each image is classified correctly, (B,) bool, in evaluation mode and its own precision.

    Raises:
        NanError: NaN among the logits of any image; its arg-max would be a verdict about nothing.
        ValueError: labels that are not one class an image.
    """
    return judge_all([Job(classifier=classifier, attacks=())], pixels, labels)[0]


def judge_all(jobs: Sequence[Job], pixels: Tensor, labels: Tensor) -> list[Tensor]:
    """`judge` for several jobs; classifiers that read the same image embeddings share their forward.

    Args:
        labels: (B,), before each job's ``to_class``.
    """
    classifiers, found = [job.classifier for job in jobs], []
    # One verdict on an image, whatever mode the model is in and whatever autocast surrounds the call.
    with frozen(*classifiers), torch.no_grad(), torch.autocast(pixels.device.type, enabled=False):
        for job, logits in zip(jobs, shared_logits(classifiers, pixels)):
            logits = read_logits(logits, len(pixels))
            refuse_nan(logits, "the model's logits are NaN")
            truth = check_labels(_truth(job, labels, pixels), *logits.shape, device=logits.device)
            found.append(~misclassified(logits, truth))
    return found


def _truth(job: Job, labels: Tensor, pixels: Tensor) -> Tensor:
    """The class of each image, (B,)."""
    if job.to_class is None:
        return labels
    # Checked: -1 would pick the last class's.
    place = pixels.device
    return job.to_class.to(place)[check_labels(labels, len(pixels), len(job.to_class), place)]


def run_jobs(
    jobs: Sequence[Job],
    batches: Iterable[dict[str, Tensor]],
    *,
    device: torch.device | str = "cpu",
    seed: int = 0,
    advance: Callable[[Progress], None] | None = None,
    log: StageLog | None = None,
    shards: Shards | None = None,
) -> list[Outcome]:
    """Run all jobs on each batch before the next one is read.

    The clean images are judged once for each classifier. Random starts are drawn anew for each batch and
    attack, for the images still standing, from ``seed`` alone: the other jobs, what ran before, and how many
    processes there are have no part in them.

    Args:
        batches: ``{"pixels", "labels"}``, e.g. a DataLoader with `PixelCollator`; with several processes
            those of this one.
        advance: told before each attack and after each job and batch.
        log: where stages are noted, and found that an earlier start finished: they are not run again.
        shards: the processes, each of which returns the outcomes of all batches; None is this one alone.

    Raises:
        NanError: see `judge`.
        ValueError: no batches.
    """
    log, shards, run = log or StageLog(), shards or Shards(), []
    tallies = [_Tally() for _ in jobs]
    for number, batch in zip(shards.numbers(), batches):
        known = [log.of(number, index) for index in range(len(jobs))]
        pixels = labels = None
        judged = {_classes(job): stages[0].verdict() for job, stages in zip(jobs, known) if stages}
        for index, (job, stages, tally) in enumerate(zip(jobs, known, tallies)):
            fresh = not _finished(job, stages)
            if fresh and pixels is None:
                pixels, labels = attackable(batch["pixels"].to(device)), batch["labels"].to(device)
            names = ["clean", *attack_labels(job.attacks)]
            while not _finished(job, stages):
                if advance is not None:
                    advance(tally.progress(job, names[len(stages)], stages))
                place = (number, index, seed)
                if stages:
                    stages.append(_attacked(job, pixels, labels, stages, *place))
                else:
                    stages.append(_clean(jobs, pixels, labels, *place, judged))
                log.add(stages[-1])
            run += stages
            tally.add(stages)
            if advance is not None:
                advance(tally.progress(job, DONE if fresh else KNOWN, images=len(stages[0].flags)))
    found = [Stage.read(line)[1] for line in shards.gather([stage.line() for stage in run])]
    return [
        outcome_of((stage for stage in found if stage.job == index), len(job.attacks))
        for index, job in enumerate(jobs)
    ]


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


def _classes(job: Job) -> tuple[int, int]:
    """Jobs that agree in this give the clean images the same verdicts."""
    return id(job.classifier), id(job.to_class)


def _finished(job: Job, stages: Sequence[Stage]) -> bool:
    """Whether nothing is left to do on a batch: after all attacks, or when nothing stands."""
    return bool(stages) and (len(stages) > len(job.attacks) or not stages[-1].flags.any())


def _clean(
    jobs: Sequence[Job],
    pixels: Tensor,
    labels: Tensor,
    batch: int,
    index: int,
    seed: int,
    judged: dict[tuple[int, int], Stage],
) -> Stage:
    """The first stage of a job on a batch. All jobs' classifiers are asked together.

    A forward that serves several jobs is charged to them in equal parts.
    """
    start, job, drawn = time.perf_counter(), jobs[index], _start_seed(seed, batch, CLEAN)
    groups: dict[Hashable, list[Job]] = {}
    for one in jobs:
        groups.setdefault(parts_of(one.classifier).key, []).append(one)
    for sharing in groups.values():
        missing = list({_classes(one): one for one in sharing if _classes(one) not in judged}.values())
        if not missing:
            continue
        before, forwards, backwards = passes_of(missing[0].classifier), len(pixels) / len(sharing), 0.0
        with _drawing_from(drawn, pixels.device):
            verdicts = judge_all(missing, pixels, labels)
        if before is not None:
            after = passes_of(missing[0].classifier)
            forwards, backwards = ((b - a) / len(sharing) for a, b in zip(before, after))
        for one, flags in zip(missing, verdicts):
            spent = {"forwards": forwards, "backwards": backwards}
            judged[_classes(one)] = Stage(batch, index, CLEAN, flags.cpu(), **spent)
    found = replace(judged[_classes(job)], job=index)
    found = _noted(job, found, pixels, _truth(job, labels, pixels), range(len(pixels)), drawn)
    return replace(found, seconds=time.perf_counter() - start)


def _attacked(
    job: Job, pixels: Tensor, labels: Tensor, before: Sequence[Stage], batch: int, index: int, seed: int
) -> Stage:
    """The next stage of a job on a batch: an attack on the images that stand."""
    start, place, labels = time.perf_counter(), pixels.device, _truth(job, labels, pixels)
    number, flags = len(before) - 1, before[-1].flags.clone()
    rows, drawn = flags.nonzero()[:, 0].to(place), _start_seed(seed, batch, number)
    generator = torch.Generator(place).manual_seed(drawn)
    with _drawing_from(drawn, place):
        result = job.attacks[number](
            job.classifier,
            pixels[rows],
            labels[rows],
            search=job.search,
            generator=generator,
            clean_correct=torch.ones(len(rows), dtype=torch.bool, device=place),
        )
    flags[rows.cpu()] = result.robust_correct.cpu()
    count = len(rows)
    found = Stage(
        batch,
        index,
        number,
        flags,
        attacked=count,
        zero=result.zero_gradient * count,
        forwards=result.cost.forwards * count,
        backwards=result.cost.backwards * count,
        notes=before[-1].notes,
    )
    found = _noted(job, found, result.adversarial, labels[rows], rows.tolist(), drawn)
    return replace(found, seconds=time.perf_counter() - start)


def _noted(job: Job, stage: Stage, pixels: Tensor, labels: Tensor, rows: Iterable[int], seed: int) -> Stage:
    """The stage with what the job's probe says of some of its images, under the conditions of `judge`."""
    if job.probe is None:
        return stage
    before = passes_of(job.probe)
    with (
        frozen(job.classifier),
        torch.no_grad(),
        torch.autocast(pixels.device.type, enabled=False),
        _drawing_from(seed, pixels.device),
    ):
        found = dict(zip(rows, job.probe(pixels, labels).tolist()))
    if stage.attack > 0 and getattr(job.probe, "ranks", False):
        found = {row: max(stage.notes[row], new, key=itemgetter(-1)) for row, new in found.items()}
    after = passes_of(job.probe)
    forwards, backwards = (len(pixels), 0) if before is None else (b - a for a, b in zip(before, after))
    return replace(
        stage,
        notes=[found.get(row, former) for row, former in enumerate(stage.notes or [[]] * len(stage.flags))],
        forwards=stage.forwards + forwards,
        backwards=stage.backwards + backwards,
        probed=(forwards, backwards),
    )


def _start_seed(seed: int, batch: int, attack: int) -> int:
    return seed + 1_000_003 * batch + 7919 * attack


@contextmanager
def _drawing_from(seed: int, device: torch.device) -> Iterator[None]:
    """What a classifier draws from the global generator depends on this seed alone."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@dataclass
class _Tally:
    """Images of one job that were right when clean, and that stand."""

    images: int = 0
    clean: int = 0
    robust: int = 0

    def add(self, stages: Sequence[Stage]) -> None:
        self.images += len(stages[0].flags)
        self.clean += int(stages[0].flags.sum())
        self.robust += int(stages[-1].flags.sum())

    def progress(self, job: Job, stage: str, stages: Sequence[Stage] = (), images: int = 0) -> Progress:
        """The accuracies so far, with the stages of a batch at work."""
        now = _Tally(self.images, self.clean, self.robust)
        if stages:
            now.add(stages)
        count = max(now.images, 1)
        return Progress(job, stage, images, now.clean / count, now.robust / count)
