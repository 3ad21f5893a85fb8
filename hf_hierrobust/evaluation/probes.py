"""The facts behind the `diagnostics` of one classifier under the attacks of one budget, on a few images."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..attacks import PGD, Attack, Cost, NoGradientError, Square, Victim, margin
from ..attacks.base import attackable
from ..attacks.image.criteria import TIE
from ..classifiers import Averaged, as_classifier, frozen, modules_behind
from ..threat import ThreatModel
from . import diagnostics
from .diagnostics import Check

IMAGES = 64
"""Images that are probed, stratified by class."""
LARGE_EPS = 0.5
FEW, REDRAWS = 2, 30
"""Images in a batch of their own; further forwards of a classifier that draws random numbers."""
MORE_STEPS, QUERIES, DRAWS = 100, 300, 6
"""On what the reported attacks leave: steps, or twice their own; black-box queries; noisy copies."""

Logits = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Probed:
    """A classifier and what it is checked on.

    Args:
        classifier: pixels -> logits (B, K).
        attacks: the reported ones, of one budget.
        pixels, labels: (B, C, H, W) in [0, 1] and (B,) classes of the classifier.
        standing: (B,) bool, the images that the reported attacks left.
        relatives: other scores of the same model for the same classes, by name.
        multiplier: of the classifier's cosine, None for other networks.
        merged: classes that share a prompt with another and were counted as one.
        seed: of random starts and of classifiers that draw.
    """

    classifier: Logits
    attacks: Sequence[Attack]
    pixels: Tensor
    labels: Tensor
    standing: Tensor
    relatives: Mapping[str, Logits]
    multiplier: float | None = None
    merged: int = 0
    seed: int = 0


def diagnose(probed: Probed) -> tuple[list[Check], Cost]:
    """All checks, and the passes per image that they took."""
    pixels, meter = attackable(probed.pixels), _Meter(probed)
    devices = [pixels.device] if pixels.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.autocast(pixels.device.type, enabled=False):
        torch.manual_seed(probed.seed)
        handed = _as_handed_over(probed.classifier, pixels)
        with frozen(probed.classifier), torch.no_grad():
            first, again = meter.logits(pixels), meter.drawn(pixels)
            among = meter.logits(pixels[:FEW]) if len(pixels) > FEW else first
        steady = _steadiness(handed, first, again, among)
        right = first.argmax(1) == probed.labels
        shape = [_twins(first, probed.merged)]
        if right.any():
            pixels, labels, standing = pixels[right], probed.labels[right], probed.standing[right]
            try:
                shape += _slopes(probed, meter, pixels, labels, first[right])
                steady += _attacked(probed, meter, pixels, labels, standing)
            except NoGradientError:
                shape.append(diagnostics.gradients(1.0, 0.0))
    return [*shape, *steady], Cost(*(total / len(right) for total in (meter.forwards, meter.backwards)))


class _Noisy:
    """The classifier of images with noise as large as the budget, which irons shattered gradients out."""

    random = True

    def __init__(self, classifier: Logits, threat: ThreatModel):
        self.owner, self.threat = classifier, threat

    def __call__(self, pixels: Tensor) -> Tensor:
        noise = torch.randn_like(pixels)
        return self.owner(pixels + noise * (self.threat.eps / self.threat.size(noise).view(-1, 1, 1, 1)))


class _Meter:
    """Runs attacks on the classifier and counts what they take."""

    def __init__(self, probed: Probed):
        self.probed, self.forwards, self.backwards = probed, 0.0, 0.0

    def logits(self, pixels: Tensor) -> Tensor:
        victim = Victim(self.probed.classifier)
        found = victim.logits(pixels)
        self.add(victim)
        return found

    def drawn(self, pixels: Tensor) -> list[Tensor]:
        """Logits of the same images once more, or often, where the forward draws random numbers.

        Whoever drops a whole batch's layer once in a while gives two equal answers most of the time.
        """
        before = _random_states(pixels)
        found = [self.logits(pixels)]
        if _random_states(pixels) != before:
            found += [self.logits(pixels) for _ in range(REDRAWS)]
        return found

    def add(self, spent: Victim | Cost, images: int = 1) -> None:
        self.forwards += spent.forwards * images
        self.backwards += spent.backwards * images

    def run(self, attack: Attack, pixels: Tensor, labels: Tensor, search: Logits | None = None) -> Tensor:
        """Which of the images, all right when clean, stand."""
        if len(pixels) == 0:
            return torch.zeros(0, dtype=torch.bool, device=pixels.device)
        known = torch.ones(len(pixels), dtype=torch.bool, device=pixels.device)
        generator = torch.Generator(pixels.device).manual_seed(self.probed.seed)
        result = attack(
            self.probed.classifier, pixels, labels, search=search, generator=generator, clean_correct=known
        )
        self.add(result.cost, len(pixels))
        return result.robust_correct


def _slopes(probed: Probed, meter: _Meter, pixels: Tensor, labels: Tensor, logits: Tensor) -> list[Check]:
    """Gradients and scale, on images that are right."""
    victim, x = Victim(probed.classifier), pixels.clone().requires_grad_()
    with frozen(probed.classifier):
        gap = margin(victim.logits(x), labels)
        slope = victim.gradient(gap, x).flatten(1)
    meter.add(victim)
    linf = probed.attacks[0].threat.norm == "linf"
    # To first order the margin vanishes at this distance; the whole range is 1, or the diagonal of the cube.
    steepness = slope.abs().sum(1) if linf else slope.norm(dim=1)
    reach = 1.0 if linf else slope.shape[1] ** 0.5
    zero = slope.abs().amax(1) == 0
    vanishing = ~zero & (-gap > reach * steepness)
    one_hot = (logits.float().softmax(1) > 0).sum(1) == 1
    return [
        diagnostics.gradients(_share(zero), _share(vanishing)),
        diagnostics.scale(_share(one_hot), probed.multiplier),
    ]


def _attacked(probed: Probed, meter: _Meter, pixels: Tensor, labels: Tensor, standing: Tensor) -> list[Check]:
    """What further attacks find, on images that are right when clean and on those that still stand."""
    threat = probed.attacks[0].threat
    budget = {"eps": threat.eps, "norm": threat.norm, "space": threat.space}
    steps = max((getattr(attack, "num_steps", 0) for attack in probed.attacks), default=0) or 20
    robust = {
        loss: _share(meter.run(PGD(**budget, num_steps=steps, loss=loss), pixels, labels))
        for loss in ("ce", "margin")
    }
    found = [diagnostics.losses(robust)]
    x, y, share = pixels[standing], labels[standing], _share(standing)

    def after(name: str, what: str, attack: Attack, search: Logits | None = None, **more) -> Check:
        left = float(meter.run(attack, x, y, search).sum()) / len(pixels)
        return diagnostics.stronger(name, what, share, left, **more)

    more, ce_alone = max(MORE_STEPS, 2 * steps), {getattr(a, "loss", None) for a in probed.attacks} == {"ce"}
    single = PGD(**budget, num_steps=1, step_size=threat.eps, random_start="zero")
    found += [
        after("one_step", "a single step", single),
        after(
            "more_steps",
            f"{more} steps on the margin",
            PGD(**budget, num_steps=more, loss="margin"),
            other_loss=ce_alone,
        ),
        after(
            "smoothed_gradients",
            f"gradients averaged over {DRAWS} images with noise of eps",
            PGD(**budget, num_steps=20, loss="margin"),
            Averaged(_Noisy(probed.classifier, threat), DRAWS),
        ),
        after("black_box", f"Square with {QUERIES} queries", Square(**budget, num_queries=QUERIES)),
        _relatives(probed, meter, pixels, labels, standing, steps, budget),
    ]
    large = budget | {"eps": LARGE_EPS if threat.norm == "linf" else LARGE_EPS * pixels[0].numel() ** 0.5}
    alive = meter.run(PGD(**large, num_steps=40, loss="margin"), pixels, labels)
    alive[alive.clone()] = meter.run(PGD(**large, num_steps=40), pixels[alive], labels[alive])
    return [*found, diagnostics.large_eps(large["eps"], _share(alive))]


def _relatives(
    probed: Probed,
    meter: _Meter,
    pixels: Tensor,
    labels: Tensor,
    standing: Tensor,
    steps: int,
    budget: dict,
) -> Check:
    """Adversarial images made against another score of the same model."""
    name = "transfer_between_scores"
    if not probed.relatives:
        return Check(name, "not applicable", "the model has no other score of these classes")
    x, y, left = pixels[standing], labels[standing], torch.ones_like(standing[standing])
    attack = PGD(**budget, num_steps=steps, loss="margin")
    for other in probed.relatives.values() if len(x) else ():
        generator = torch.Generator(x.device).manual_seed(probed.seed)
        made, victim = attack.to_the_end(other, x, y, generator=generator)
        meter.add(victim)
        with frozen(probed.classifier), torch.no_grad():
            left &= meter.logits(made).argmax(1) == y
    what = f"images made against {' and '.join(probed.relatives)}"
    return diagnostics.stronger(name, what, _share(standing), float(left.sum()) / len(pixels))


def _random_states(pixels: Tensor) -> tuple:
    """Of the generators that a network may draw from."""
    states = [torch.get_rng_state()]
    states += [torch.cuda.get_rng_state(pixels.device)] if pixels.device.type == "cuda" else []
    keys, place = np.random.get_state()[1:3]
    return random.getstate(), keys.tobytes(), place, *(state.numpy().tobytes() for state in states)


def _steadiness(
    handed: tuple[int, Tensor | None], first: Tensor, again: Sequence[Tensor], among: Tensor
) -> list[Check]:
    """Whether answers to the same images are the same.

    Args:
        handed: see `_as_handed_over`.
        first, again: logits of the images, from one forward and from others.
        among: logits of the first of them in a batch without the rest.
    """
    size = first.abs().amax().clamp(min=1e-12)
    training, logits = handed
    apart = max(float((first - one).abs().amax() / size) for one in again)
    flipped = max(_share(first.argmax(1) != one.argmax(1)) for one in again)
    beside = float((first[: len(among)] - among).abs().amax() / size)
    return [
        diagnostics.randomised(apart, flipped, beside),
        diagnostics.train_mode(training, float((first - logits).abs().amax() / size) if training else 0.0),
    ]


def _as_handed_over(classifier: Logits, pixels: Tensor) -> tuple[int, Tensor | None]:
    """Modules in training mode, and the logits in the mode in which they came; buffers stay as they were."""
    modules = [part for module in modules_behind(classifier) for part in module.modules()]
    training = sum(part.training for part in modules)
    if not training:
        return 0, None
    with _restored(modules), torch.no_grad():
        return training, as_classifier(classifier)(pixels)


@contextmanager
def _restored(modules: Sequence[torch.nn.Module]) -> Iterator[None]:
    """Statistics that a forward in training mode updates are put back."""
    buffers = [(buffer, copy.deepcopy(buffer)) for part in modules for buffer in part.buffers(recurse=False)]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


def _twins(logits: Tensor, merged: int) -> Check:
    """Classes that tie on all images."""
    near = torch.ones(logits.shape[1], logits.shape[1], dtype=torch.bool, device=logits.device)
    for row in logits:
        near &= (row[:, None] - row).abs() <= TIE * torch.maximum(row[:, None].abs(), row.abs())
    pairs = near.triu(1).nonzero().tolist()
    return diagnostics.twins(pairs, merged)


def _share(flags: Tensor) -> float:
    return float(flags.float().mean()) if len(flags) else 0.0
