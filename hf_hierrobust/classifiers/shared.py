"""One forward of the image tower for all classifiers that read the same embeddings."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .classifier import as_classifier


class Parts(NamedTuple):
    """A classifier as ``head(stem(pixels))``.

    Attributes:
        key: equal for classifiers whose stems compute the same.
        stem: the expensive part, pixels (B, 3, H, W) -> anything.
        head: what the stem returned -> logits (B, K).
    """

    key: Hashable
    stem: Callable[[Tensor], object]
    head: Callable[[object], Tensor]


def parts_of(classifier: Callable[[Tensor], Tensor]) -> Parts:
    """What the classifier's own ``parts()`` says; one without is all stem."""
    parts = getattr(classifier, "parts", None)
    if isinstance(classifier, torch.nn.Module) or parts is None:
        return Parts(id(classifier), as_classifier(classifier), _same)
    return parts()


def shared_logits(classifiers: Sequence[Callable[[Tensor], Tensor]], pixels: Tensor) -> list[Tensor]:
    """Logits of each classifier for the same pixels; each stem is computed once.

    Args:
        classifiers: pixels (B, 3, H, W) in [0, 1] -> logits (B, K), frozen by the caller.
    """
    computed: dict[Hashable, object] = {}
    found = []
    for classifier in classifiers:
        key, stem, head = parts_of(classifier)
        if key not in computed:
            computed[key] = stem(pixels)
        found.append(head(computed[key]))
    return found


def passes_of(classifier: object) -> tuple[int, int] | None:
    """Images that a classifier's network passed forward and back so far, where it counts them itself.

    One whose answer takes several passes has ``passes``; behind wrappers it is found as ``net`` or ``owner``.
    """
    while classifier is not None:
        if (passes := getattr(classifier, "passes", None)) is not None:
            return tuple(passes)
        classifier = getattr(classifier, "net", None) or getattr(classifier, "owner", None)
    return None


def _same(logits):
    return logits
