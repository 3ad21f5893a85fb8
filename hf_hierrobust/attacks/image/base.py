"""The frame every evaluation attack runs in: checked input, frozen classifier, its own verdict on the result.

A classifier is any callable from pixels in [0, 1] (B, C, H, W) to logits (B, K). A new attack is one class:

    @ATTACKS.register
    @dataclass(kw_only=True)
    class Mine(Attack):
        name = "mine"

        def run(self, victim, pixels, labels, generator):
            ...  # adversarial pixels, whatever they are: the frame projects and judges them
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from ...classifiers.freezing import frozen
from ...classifiers.steadiness import check_steady
from ...registry import Registry
from ..base import PixelAttack, attackable, check_labels, refuse_nan
from .criteria import misclassified
from .victim import Cost, Reading, Relentless, Victim

ATTACKS: Registry[Attack] = Registry("attack", "hf_hierrobust.attacks.image")


class AttackResult(NamedTuple):
    """Outcome of one attack on one batch.

    Attributes:
        adversarial: pixels (B, C, H, W); the clean ones where those were already misclassified.
        clean_correct: (B,) bool, the unperturbed image is classified correctly.
        robust_correct: (B,) bool, correct on the clean image and on the adversarial one.
        zero_gradient: fraction of attacked images whose first gradient was exactly zero. Anything
            well above 0 says that the gradient is masked and the robust accuracy is not to be believed.
        cost: passes per attacked image.
    """

    adversarial: Tensor
    clean_correct: Tensor
    robust_correct: Tensor
    zero_gradient: float
    cost: Cost = Cost()


@dataclass(kw_only=True)
class Attack(PixelAttack):
    """Base of all evaluation attacks; subclasses are dataclasses with a ``name`` and implement `run`.

    Args:
        eps, norm, space: see `PixelAttack`.

    Attributes:
        sight: what it follows: gradients away from the label (``"untargeted"``), gradients towards other
            classes one by one (``"targeted"``), or answers alone (``"black-box"``). What later attacks may
            break of an honest model depends on it.
    """

    sight: ClassVar[Literal["untargeted", "targeted", "black-box"]] = "untargeted"

    def __call__(
        self,
        classifier: Callable[[Tensor], Tensor],
        pixels: Tensor,
        labels: Tensor,
        *,
        search: Callable[[Tensor], Tensor] | None = None,
        generator: torch.Generator | None = None,
        clean_correct: Tensor | None = None,
    ) -> AttackResult:
        """Attack a batch: images that are right when clean; the rest is returned as it came.

        A classifier that answers the same image differently is named in a warning (`check_steady`).

        Args:
            classifier: pixels (B, C, H, W) in [0, 1] -> logits (B, K). Its verdicts, in its own precision and
                without a surrounding autocast, decide.
            pixels, labels: (B, C, H, W) in [0, 1] and (B,), the latter of any number type.
            search: callable used for gradients instead, e.g. the same model under bf16 autocast; an image
                counts as broken only if ``classifier`` agrees.
            generator: source of random starts; the global generator is never touched when given.
            clean_correct: (B,) bool, which clean images the classifier gets right, from a caller that has
                asked it and checked the labels; None asks it here.

        Raises:
            TypeError, ValueError: see `check_pixels` and `check_labels`; an attack without a name of its own;
                a classifier that gives no logits (B, K) or has no gradient path; what `run` returned is no
                batch of pixels.
            NanError: NaN logits of any image, clean or attacked, or NaN gradients.
        """
        ATTACKS.check(self)
        space = getattr(classifier, "space", self.threat.space)
        if space != self.threat.space:
            raise ValueError(
                f"space={self.threat.space!r} of the attack, but the classifier's pipeline takes pixels of "
                f"space {space!r} and would preprocess these wrongly: make it PixelPipeline(image_processor, "
                f"{self.threat.space!r})"
            )
        pixels = attackable(pixels)
        victim = Victim(classifier, search)
        # A surrounding autocast would reach the verdicts; a search brings its own.
        with frozen(classifier, search), torch.autocast(pixels.device.type, enabled=False):
            logits = None
            if clean_correct is None:
                with torch.no_grad():
                    logits = victim.classifier(pixels)
                labels = check_labels(labels, *logits.shape, device=pixels.device)
                # An arg-max over NaN is a verdict about nothing.
                refuse_nan(logits, "the model's logits are NaN")
                clean_correct = ~misclassified(logits, labels)
            check_steady(victim.classifier, pixels, logits, owner=classifier)
            clean = clean_correct
            adversarial, robust, rows = pixels.clone(), clean.clone(), clean.nonzero()[:, 0]
            if len(rows):
                found = self.run(victim, pixels[rows], labels[rows], generator)
                adversarial[rows] = self.allowed(found, pixels[rows])
                robust[rows] = ~victim.fooled(adversarial[rows], labels[rows])
        return AttackResult(adversarial, clean, robust, victim.zero_gradient, victim.cost(len(rows)))

    def run(
        self, victim: Victim, pixels: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Adversarial pixels (N, C, H, W) for images that the classifier gets right.

        One that asks about parts of the images only tells the victim where each of its runs ended
        (`Victim.note`): `to_the_end` keeps the best of them.

        Args:
            victim: the attacked classifier, frozen.
            pixels, labels: (N, C, H, W) in [0, 1], fp32 or wider, and int64 (N,); N is at least 1.
            generator: source of whatever is drawn; None draws from torch's global one.
        """
        raise NotImplementedError(f"{type(self).__name__} has no run(victim, pixels, labels, generator)")

    def to_the_end(
        self,
        classifier: Callable[[Tensor], Tensor],
        pixels: Tensor,
        labels: Tensor,
        *,
        search: Callable[[Tensor], Tensor] | None = None,
        generator: torch.Generator | None = None,
        read: Reading | None = None,
    ) -> tuple[Tensor, Victim]:
        """Adversarial pixels (N, C, H, W) of an attack that is never told of its success, and its meter.

        The first iterate that fools a classifier is barely over the boundary; deeper ones fool more of the
        other classifiers too. Of all iterates of all runs, towards whatever target and from whatever start,
        an image comes back as the one with the largest margin, see `Relentless`. `__call__` has checked the
        input before.

        Args:
            read: what ``classifier`` gives and the labels -> logits and labels of the verdict, where
                these are not the same.
        """
        victim = Relentless(classifier, search, pixels, labels, self.threat, read)
        with frozen(classifier, search), torch.autocast(pixels.device.type, enabled=False):
            return victim.deepest(self.allowed(self.run(victim, pixels, labels, generator), pixels)), victim

    def allowed(self, found: Tensor, pixels: Tensor) -> Tensor:
        """What `run` returned, with images that left the threat model put back into it."""
        if not isinstance(found, Tensor) or found.shape != pixels.shape:
            what = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise TypeError(
                f"{type(self).__name__}.run returned {what}: expected adversarial pixels "
                f"{tuple(pixels.shape)}"
            )
        threat, found = self.threat, found.detach().to(pixels)
        refuse_nan(found, f"pixels that {type(self).__name__}.run returned are NaN")
        # Not all: recomputing an allowed image as x + (x' - x) would move it by a rounding.
        outside = threat.outside(found, pixels)
        if outside.any():
            delta = threat.project(found[outside] - pixels[outside], pixels[outside])
            found = found.index_put((outside,), pixels[outside] + delta)
        return found
