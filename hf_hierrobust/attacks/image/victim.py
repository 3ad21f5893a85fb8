"""The attacked classifier as an attack sees it: logits, gradients, verdicts, and a meter of their cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ...classifiers.classifier import as_classifier
from ...classifiers.shared import passes_of
from ...threat import ThreatModel
from ..base import NanError, input_gradients, refuse_nan
from .criteria import margin, misclassified

Reading = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Cost(NamedTuple):
    """What an attack on one image took, on average over the images that were attacked.

    Attributes:
        forwards: images passed through the classifier or its search, verdicts included.
        backwards: images passed back.
    """

    forwards: float = 0.0
    backwards: float = 0.0


class Victim:
    """What `Attack.run` may ask about the classifier.

    Args:
        classifier: pixels (B, C, H, W) in [0, 1] -> logits (B, K). Its verdicts decide.
        search: cheaper callable for logits and gradients, e.g. the same model under bf16 autocast; None
            searches with the classifier.

    Attributes:
        tells: whether `fooled` says so.
        forwards, backwards: images passed so far.
        zero_gradient: fraction of images whose first gradient was exactly zero; 0 before any gradient.
    """

    tells: ClassVar[bool] = True

    def __init__(
        self, classifier: Callable[[Tensor], Tensor], search: Callable[[Tensor], Tensor] | None = None
    ):
        self.classifier = as_classifier(classifier)
        self.search = self.classifier if search is None or search is classifier else as_classifier(search)
        self.forwards = self.backwards = 0
        self._zero_gradient: float | None = None
        self._logits = torch.zeros(0, 0)  # those that came last

    @property
    def zero_gradient(self) -> float:
        return self._zero_gradient or 0.0

    def logits(self, x: Tensor) -> Tensor:
        """Logits (B, K) of the search, with a graph where ``x`` has one.

        Raises:
            NanError: NaN for any image.
        """
        return self._forward(self.search, x)

    def gradient(self, loss: Tensor, x: Tensor, retain_graph: bool = False) -> Tensor:
        """Gradient of the summed loss with respect to ``x``; nothing else gets one.

        Args:
            loss: one value per image, from `logits`.
            x: attacked pixels, or their perturbation, with ``requires_grad``.
            retain_graph: True where another gradient of the same logits follows.

        Raises:
            NanError: NaN in any image's gradient; it names logits that are infinite.
            NoGradientError: autograd finds no way from the loss to ``x``.
        """
        try:
            (gradient,) = input_gradients(loss, [x], retain_graph)
        except NanError as error:
            raise self._cause(error) from None
        self.backwards += len(x) * getattr(self.search.net, "draws", 1)
        if self._zero_gradient is None:
            self._zero_gradient = float((gradient.flatten(1).abs().amax(1) == 0).float().mean())
        return gradient

    @torch.no_grad()
    def fooled(self, x: Tensor, labels: Tensor, logits: Tensor | None = None) -> Tensor:
        """Misclassified by the classifier itself, (B,) bool.

        Args:
            logits: the search's logits of ``x``, if known: the classifier is then asked only about images
                that those call misclassified, or not at all where it is the search.

        Raises:
            NanError: NaN logits of any image.
        """
        if logits is None:
            return misclassified(self._forward(self.classifier, x), labels)
        found = misclassified(logits, labels)
        if self.search is not self.classifier and found.any():
            found[found.clone()] = misclassified(self._forward(self.classifier, x[found]), labels[found])
        return found

    def note(self, x: Tensor, labels: Tensor) -> None:
        """Hear where a run of all images ended, for the sake of `Relentless`."""

    def cost(self, images: int) -> Cost:
        """Passes per image, over this many attacked images."""
        return Cost(self.forwards / images, self.backwards / images) if images else Cost()

    def _forward(self, classifier: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        before = passes_of(classifier)
        logits = classifier(x)
        if before is None:
            self.forwards += len(x)
        else:  # its answer takes several passes, and it counts them
            forwards, backwards = passes_of(classifier)
            self.forwards += forwards - before[0]
            self.backwards += backwards - before[1]
        refuse_nan(logits, "the model's logits are NaN")
        self._logits = logits.detach()
        return logits

    def _cause(self, error: NanError) -> NanError:
        """The error of a gradient, or one that names the infinite logits which it comes from."""
        infinite = self._logits.isinf().nonzero().tolist()
        if not infinite:
            return error
        image, number = infinite[0]
        return NanError(
            f"the gradient of the attack loss is NaN since logits are infinite, first that of class {number} "
            f"for image {image}: no gradient leads to a class that the network masks; give it a very low but "
            "finite logit, or leave it out of the classes"
        )


class Relentless(Victim):
    """A victim that never says that it is fooled, and keeps of each image the iterate that fools it most.

    An attack works on every image to its last step, so each of its targets and restarts ends somewhere, and
    the last of them need not be the one that succeeds. Most is the largest `margin`.

    Args:
        classifier, search: see `Victim`.
        pixels, labels: all images of the attack, (N, C, H, W) and (N,).
        threat: iterates outside of it do not count.
        read: what the classifier gives and the labels -> logits and labels of the verdict; None: the same.
    """

    tells: ClassVar[bool] = False

    def __init__(
        self,
        classifier: Callable[[Tensor], Tensor],
        search: Callable[[Tensor], Tensor] | None,
        pixels: Tensor,
        labels: Tensor,
        threat: ThreatModel,
        read: Reading | None = None,
    ):
        super().__init__(classifier, search)
        self.pixels, self.labels, self.threat, self.read = pixels, labels, threat, read
        self._best = pixels.clone()
        self._depth = torch.full(pixels.shape[:1], -torch.inf, device=pixels.device)

    @torch.no_grad()
    def fooled(self, x: Tensor, labels: Tensor, logits: Tensor | None = None) -> Tensor:
        # None leaves, so that whoever asks about as many images as there are asks about these.
        if len(x) == len(self.pixels) and torch.equal(labels, self.labels):
            logits = self._forward(self.classifier, x) if logits is None else logits
            depth = self._depths(logits).masked_fill(self.threat.outside(x, self.pixels), -torch.inf)
            deeper = depth > self._depth
            self._depth = torch.where(deeper, depth, self._depth)
            self._best = torch.where(deeper.view(-1, 1, 1, 1), x.to(self._best), self._best)
        return torch.zeros(len(x), dtype=torch.bool, device=x.device)

    def note(self, x: Tensor, labels: Tensor) -> None:
        self.fooled(x, labels)

    @torch.no_grad()
    def deepest(self, found: Tensor) -> Tensor:
        """What the attack returned (N, C, H, W), or an earlier iterate that fools the classifier more."""
        kept = self._depth
        if self.search is not self.classifier:  # whose word has counted so far
            kept = self._depths(self._forward(self.classifier, self._best))
            kept = kept.masked_fill(self._depth.isneginf(), -torch.inf)
        last = self._depths(self._forward(self.classifier, found)) >= kept
        return torch.where(last.view(-1, 1, 1, 1), found, self._best)

    def _depths(self, logits: Tensor) -> Tensor:
        """Margins of all images (N,), of one sign for the right and the other for the wrong."""
        logits, labels = (logits, self.labels) if self.read is None else self.read(logits, self.labels)
        value = margin(logits, labels).to(self._depth)
        # A margin to twins has another one added to it.
        wrong = misclassified(logits, labels)
        return torch.where(wrong, value.clamp(min=0), value.clamp(max=-1e-12))
