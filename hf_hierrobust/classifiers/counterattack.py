"""TTC, a test-time defence (2503.03613): the image is perturbed away from where an attack may have put it.

An attacked image is "falsely stable": noise moves its embedding less than that of a clean one. There the
defence climbs away from the embedding before it classifies. It is random, so an attack through it averages
over draws (`Averaged`), and its own steps pass gradients on as if they did not depend on the image (BPDA,
1802.00420).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..options import check_counts, check_numbers
from ..threat import parse_eps
from .shared import parts_of


@dataclass(frozen=True, kw_only=True)
class TTC:
    """Options of the test-time counterattack; the published ones are the defaults.

    Args:
        eps: of the counterattack, linf in pixel scale; ``"4/255"`` is accepted.
        step_size: of its steps.
        num_steps: of it.
        threshold: an image whose embedding moves less under noise, relative to its length, is
            counterattacked; the others get the noise alone.
        beta: weight of the later iterates, ``exp(beta j)`` of iterate j.
    """

    name: ClassVar[str] = "ttc"
    eps: float | str = 4 / 255
    step_size: float | str = 1 / 255
    num_steps: int = 2
    threshold: float = 0.2
    beta: float = 2.0

    def __post_init__(self):
        for name in ("eps", "step_size"):
            object.__setattr__(self, name, parse_eps(getattr(self, name), name))
        check_counts(self, "num_steps")
        check_numbers(self, "threshold", "beta")

    def describe(self) -> dict:
        """Its constants, for records."""
        return {"name": self.name, **asdict(self)}

    def around(self, classifier: Callable[[Tensor], Tensor]) -> Counterattacked:
        """The defended classifier."""
        return Counterattacked(classifier, self)


class Counterattacked:
    """A classifier by image embeddings behind a test-time counterattack; random, by torch's global generator.

    Args:
        classifier: a `ZeroShotClassifier` or one derived from it.
        options: of the counterattack.

    Attributes:
        passes: images that the image tower passed forward and back so far, the defence's own included.
        random: that it answers the same image differently, and means to.

    Raises:
        TypeError: a classifier without image embeddings.
    """

    random: ClassVar[bool] = True

    def __init__(self, classifier: Callable[[Tensor], Tensor], options: TTC):
        self.key, self.features, self.head = parts_of(classifier)
        if not isinstance(self.key, tuple):  # of a classifier that is all stem it is a number
            raise TypeError(
                f"TTC moves the image's embedding, which a {type(classifier).__name__} does not have: defend "
                "a classifier of a CLIP or SigLIP model"
            )
        self.classifier, self.options, self.passes = classifier, options, [0, 0]

    @property
    def space(self) -> str:
        """Threat space of the pixels, where the classifier names one."""
        return self.classifier.space

    def with_autocast(self, dtype: torch.dtype | None) -> Counterattacked:
        """The same classifier with its image tower under autocast."""
        return Counterattacked(self.classifier.with_autocast(dtype), self.options)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in [0, 1] to logits (B, K) of the counterattacked images.

        The counterattack is constant in the gradient: what it adds is no function of the pixels.
        """
        return self.head(self._embed(pixels + self.counterattack(pixels.detach())))

    def counterattack(self, pixels: Tensor) -> Tensor:
        """What the defence adds to the pixels (B, 3, H, W), detached."""
        options = self.options
        noise = torch.empty_like(pixels).uniform_(-options.eps, options.eps)
        noise = (pixels + noise).clamp(0, 1) - pixels
        with torch.no_grad():
            anchor = self._embed(pixels)
        # The caller may be in no_grad, as verdicts are.
        with torch.enable_grad():
            delta = noise.clone().requires_grad_()
            moved = self._embed(pixels + delta)
            ratio = (moved - anchor).detach().norm(dim=-1) / anchor.norm(dim=-1)
            stable = ratio < options.threshold
            if not stable.any():
                return noise
            gradient = self._gradient(moved[stable], anchor[stable], delta)[stable]
            x, iterates = pixels[stable], [noise[stable]]
            for step in range(options.num_steps):
                if step > 0:
                    delta = iterates[-1].clone().requires_grad_()
                    gradient = self._gradient(self._embed(x + delta), anchor[stable], delta)
                delta = iterates[-1] + options.step_size * gradient.sign()
                delta = delta.clamp(-options.eps, options.eps)
                iterates.append((x + delta).clamp(0, 1) - x)
        weights = (options.beta * torch.arange(len(iterates), device=pixels.device)).softmax(0)
        counter = torch.einsum("j,jbchw->bchw", weights, torch.stack(iterates))
        return noise.index_put((stable,), counter.detach())

    def _gradient(self, moved: Tensor, anchor: Tensor, delta: Tensor) -> Tensor:
        self.passes[1] += len(delta)
        return torch.autograd.grad((moved - anchor).square().sum(), delta)[0]

    def _embed(self, pixels: Tensor) -> Tensor:
        self.passes[0] += len(pixels)
        return self.features(pixels)


class Averaged:
    """A random classifier's mean logits over several draws (EOT, 1707.07397), for the search of attacks.

    Args:
        classifier: pixels -> logits, random.
        draws: to average over.

    Attributes:
        passes: of the classifier, see `Counterattacked`.
    """

    def __init__(self, classifier: Callable[[Tensor], Tensor], draws: int):
        self.classifier, self.draws = classifier, draws
        check_counts(self, "draws")

    @property
    def passes(self) -> list[int] | None:
        return getattr(self.classifier, "passes", None)

    def __call__(self, pixels: Tensor) -> Tensor:
        return sum(self.classifier(pixels) for _ in range(self.draws)) / self.draws
