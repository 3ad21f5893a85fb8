"""Verdicts on whether a robust accuracy can be believed, each a function of a few measured facts.

The signs are those of Athalye et al. (1802.00420) and Carlini et al. (1902.06705, section 3.2); `probes`
measures the facts. Fractions are of the probed images that are right when clean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from .doubts import ZERO_GRADIENTS

FLAT = 0.1
"""Suspicious fraction of images with vanishing gradients, or with a softmax that is exactly one-hot."""
LARGEST_MULTIPLIER = 200.0
"""CLIP stops its logit multiplier at 100 and SigLIP learns 120: far above, the cross-entropy goes blind."""
STANDING_AT_LARGE_EPS = 0.1
"""Half the range of pixels turns every image grey: who still stands there was not attacked."""
APART = (0.125, 0.3)
"""Two losses are too far apart above this fraction of all images, or of those that the weaker one leaves."""
MANY = (0.05, 0.1)
"""Something weaker is suspicious above this fraction of all images and of those that stood."""
UNSTEADY, AMONG_OTHERS = 1e-5, 0.02
"""Difference of logits, relative to the largest, between two forwards of the same batch, and of the same
images in another one, where other kernels round otherwise (bf16 to 0.004)."""


class Check(NamedTuple):
    """What one check found.

    Attributes:
        name: of the check.
        verdict: ``"passed"``, ``"failed"`` or ``"not applicable"``.
        why: what speaks against the number, or why it does not apply; "" for a passed one.
        numbers: the facts.
    """

    name: str
    verdict: str
    why: str = ""
    numbers: Mapping[str, float | int] = {}

    def to_dict(self) -> dict:
        said = {"why": self.why} if self.why else {}
        return {"verdict": self.verdict} | said | dict(self.numbers)


def gradients(zero: float, vanishing: float) -> Check:
    """Exactly zero or vanishing gradients of the margin at the clean image.

    Args:
        zero, vanishing: fractions whose gradient is exactly zero, or so small that to first order not even a
            change by the whole range of pixels would fool the classifier.
    """
    numbers = {"zero": zero, "vanishing": vanishing}
    if zero > ZERO_GRADIENTS:
        return _failed("gradients", f"exactly zero gradients on {zero:.1%} of the images", numbers)
    if vanishing > FLAT:
        return _failed("gradients", f"vanishing gradients on {vanishing:.1%} of the images", numbers)
    return Check("gradients", "passed", numbers=numbers)


def scale(one_hot: float, multiplier: float | None) -> Check:
    """Inflated logits.

    Args:
        one_hot: fraction of images whose softmax is exactly one-hot in fp32.
        multiplier: of the cosine, None for other networks.
    """
    numbers = {"one_hot": one_hot} | ({} if multiplier is None else {"multiplier": multiplier})
    if multiplier is not None and multiplier > LARGEST_MULTIPLIER:
        return _failed("scale", f"a logit multiplier of {multiplier:.0f}, where CLIP stops at 100", numbers)
    if one_hot > FLAT:
        return _failed("scale", f"a softmax that is exactly one-hot on {one_hot:.1%} of the images", numbers)
    return Check("scale", "passed", numbers=numbers)


def losses(robust: Mapping[str, float]) -> Check:
    """One loss that leaves far more images standing than another, each from the clean images on.

    Args:
        robust: fraction that stands under PGD on each loss.
    """
    best, worst = min(robust, key=robust.__getitem__), max(robust, key=robust.__getitem__)
    numbers = {f"robust_{name}": value for name, value in robust.items()}
    apart = robust[worst] - robust[best]
    # On several classes the cross-entropy aims a little beside the nearest boundary, on an honest model too.
    if _apart(apart, robust[worst]):
        why = f"PGD on {worst} leaves {robust[worst]:.1%} standing, on {best} {robust[best]:.1%}"
        return _failed("ce_against_margin", why, numbers)
    return Check("ce_against_margin", "passed", numbers=numbers)


def randomised(difference: float, flipped: float, among: float = 0.0) -> Check:
    """Answers that differ between forwards of the same batch, or with the other images of the batch.

    Args:
        difference: of logits, relative to the largest.
        flipped: fraction of images whose class changed.
        among: difference of the logits of the same images without the rest of their batch.
    """
    numbers = {"difference": difference, "flipped": flipped, "among_others": among}
    if difference > UNSTEADY:
        why = f"two forwards of the same images differ by {difference:.1%} of the largest logit"
        return _failed("randomised_outputs", f"{why}: average over draws (EOT)", numbers)
    if among > AMONG_OTHERS:
        why = f"logits of an image differ by {among:.1%} of the largest with the others of its batch"
        return _failed("randomised_outputs", f"{why}: normalise by fixed statistics", numbers)
    return Check("randomised_outputs", "passed", numbers=numbers)


def train_mode(training: int, difference: float) -> Check:
    """Parts handed over in training mode that answer otherwise than in evaluation mode, which was measured.

    Args:
        training: modules in training mode.
        difference: of the logits in the two modes, relative to the largest.
    """
    numbers = {"training_modules": training, "difference": difference}
    if training and difference > UNSTEADY:
        why = (
            f"{training} modules were handed over in training mode, in which the logits differ by "
            f"{difference:.1%}; measured was evaluation mode"
        )
        return _failed("train_mode", why, numbers)
    return Check("train_mode", "passed", numbers=numbers)


def twins(pairs: Iterable[tuple[int, int]], merged: int) -> Check:
    """Classes that no image tells apart: the margin between them has no gradient.

    Args:
        pairs: of classes whose logits tie on every image.
        merged: classes that were counted as one with another of the same prompt.
    """
    pairs = list(pairs)
    numbers = {"tied_pairs": len(pairs), "merged": merged}
    if pairs:
        first = " and ".join(map(str, pairs[0]))
        why = f"{len(pairs)} pairs of classes have equal logits on every image, the first {first}"
        return _failed("twins", why, numbers)
    if merged:
        return _failed("twins", f"{merged} classes share the prompt of another and count as one", numbers)
    return Check("twins", "passed", numbers=numbers)


def stronger(name: str, what: str, standing: float, left: float, other_loss: bool = False) -> Check:
    """Something that should be weaker than the reported attacks, or no stronger, breaks what these left.

    Args:
        name: of the check.
        what: breaks the images, such as ``"1 step"``.
        standing, left: fractions that stand under the reported attacks, and after it too.
        other_loss: it climbs the margin, and they the cross-entropy alone.
    """
    numbers = {"standing": standing, "left": left}
    if (_apart if other_loss else _many)(standing - left, standing):
        why = f"{what} broke {standing - left:.1%} of the images that stood ({standing:.1%} to {left:.1%})"
        return _failed(name, why, numbers)
    return Check(name, "passed", numbers=numbers)


def large_eps(eps: float, standing: float) -> Check:
    """Images that stand at a budget at which none can."""
    numbers = {"eps": eps, "standing": standing}
    if standing > STANDING_AT_LARGE_EPS:
        return _failed("large_eps", f"{standing:.1%} of the images stand at eps {eps:g}", numbers)
    return Check("large_eps", "passed", numbers=numbers)


def verdict_with(checks: Mapping, found: Iterable[Check]) -> dict:
    """The ``checks`` of a record with diagnostics in them, whose failures its masking verdict names."""
    found = list(found)
    signs = [f"{check.name}: {check.why}" for check in found if check.verdict == "failed"]
    before = checks.get("masking", "none seen")
    if signs and before.startswith("suspected: "):
        signs.insert(0, before.removeprefix("suspected: "))
    masking = f"suspected: {'; '.join(signs)}" if signs else before
    return {**checks, "masking": masking, "diagnostics": {check.name: check.to_dict() for check in found}}


def _many(broken: float, standing: float) -> bool:
    return broken > MANY[0] and broken > MANY[1] * standing


def _apart(broken: float, standing: float) -> bool:
    return broken > APART[0] or (_many(broken, standing) and broken > APART[1] * standing)


def _failed(name: str, why: str, numbers: Mapping) -> Check:
    return Check(name, "failed", why, numbers)
