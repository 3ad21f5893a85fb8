"""A classifier that answers the same image differently is named before its verdicts are believed."""

from __future__ import annotations

import contextlib
import warnings
import weakref
from collections.abc import Callable

import torch
from torch import Tensor

AGAIN, IN_ANOTHER_BATCH = 1e-5, 5e-3
"""Difference of logits, relative to their largest, above which two answers differ: to the same batch, and to
the same images among others, where other kernels round otherwise (TF32 to 1e-3)."""
_IMAGES = 8

_ASKED: weakref.WeakValueDictionary[int, Callable] = weakref.WeakValueDictionary()


class UnsteadyClassifierWarning(RuntimeWarning):
    """The classifier gave different logits for the same image."""


@torch.no_grad()
def check_steady(
    classifier: Callable[[Tensor], Tensor],
    pixels: Tensor,
    logits: Tensor | None = None,
    owner: Callable | None = None,
) -> None:
    """Ask a few images twice more and warn, with the difference, if the answers are not the same.

    Each classifier is asked once, when it is first attacked; one that says it is ``random`` is not.

    Args:
        classifier: frozen, pixels -> logits (B, K).
        pixels, logits: a clean batch and the answers to it, if known.
        owner: whom to remember as asked, where ``classifier`` is a wrapper made for this call; its own
            ``owner``, if it has one.
    """
    owner = classifier if owner is None else owner
    owner = getattr(owner, "owner", owner)
    if _ASKED.get(id(owner)) is owner or getattr(owner, "random", False):
        return
    with contextlib.suppress(TypeError):  # what takes no weak reference is asked each time
        _ASKED[id(owner)] = owner
    few = pixels[:_IMAGES] if len(pixels) > _IMAGES else pixels[: (len(pixels) + 1) // 2]
    # What is drawn here, once, must not shift what the verdicts draw.
    with torch.random.fork_rng([pixels.device] if pixels.device.type == "cuda" else []):
        logits = classifier(pixels) if logits is None else logits
        first, second = classifier(few), classifier(few)
    scale = float(logits.abs().amax().clamp(min=1e-12))
    again = float((first - second).abs().max())
    among = float((first - logits[: len(few)]).abs().max())
    name = getattr(owner, "__qualname__", type(owner).__name__)
    if again > AGAIN * scale:
        warnings.warn(
            f"the classifier {name} answers the same images differently: logits of up to {scale:.3g} differ "
            f"by up to {again:.3g} between two forwards. Verdicts are those of single draws; if a network in "
            "training mode is behind it, hand over the network or call eval() on it",
            UnsteadyClassifierWarning,
            stacklevel=4,
        )
    elif among > IN_ANOTHER_BATCH * scale:
        warnings.warn(
            f"the classifier {name} answers an image depending on the others of its batch: logits of up to "
            f"{scale:.3g} differ by up to {among:.3g} between a batch of {len(pixels)} and {len(few)} of its "
            "images. If it normalises by the batch, as BatchNorm does in training mode, hand over the "
            "network or call eval() on it",
            UnsteadyClassifierWarning,
            stacklevel=4,
        )
