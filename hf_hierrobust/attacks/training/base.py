"""The contract of training attacks: a loss over pixels, text and levels in, perturbations out.

A new one is one class:

    @TRAINING_ATTACKS.register
    @dataclass(kw_only=True)
    class Mine(TrainingAttack):
        name = "mine"

        def perturb(self, loss, pixels, *, text_shape=None, levels=1, generator=None):
            return [Perturbation(...)]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from ...registry import Registry
from ..base import PixelAttack

Levels = tuple[int, ...] | None


class Perturbation(NamedTuple):
    """One training perturbation: what the training loss is evaluated on.

    Attributes:
        pixels: (B, C, H, W) adversarial pixels in [0, 1].
        text_delta: (N, D) or (1, D), added to what `TrainingAttack.text_perturbation` names, or None.
        levels: tree levels whose training loss counts on it, None for all.
    """

    pixels: Tensor
    text_delta: Tensor | None = None
    levels: Levels = None


class TrainingLoss(Protocol):
    """What a training attack maximises: the objective's inner loss, of any shape; its sum counts."""

    def __call__(self, pixels: Tensor, text_delta: Tensor | None = None, levels: Levels = None) -> Tensor: ...


TRAINING_ATTACKS: Registry[TrainingAttack] = Registry("training attack", "hf_hierrobust.attacks.training")


@dataclass(kw_only=True)
class TrainingAttack(PixelAttack):
    """Base of all training attacks; subclasses are dataclasses with a ``name`` and implement `perturb`.

    Args:
        eps, norm, space: see `PixelAttack`.
    """

    text_perturbation: ClassVar[str] = "tangent"
    """What a text perturbation is added to: the text nodes' ``"tangent"`` vectors or ``"pooled"`` states."""

    def perturb(
        self,
        loss: TrainingLoss,
        pixels: Tensor,
        *,
        text_shape: tuple[int, int] | None = None,
        levels: int = 1,
        generator: torch.Generator | None = None,
    ) -> list[Perturbation]:
        """Perturbations of a batch, one or several to train on.

        The caller freezes the model (`frozen`) and chooses the precision.

        Args:
            loss: called as (pixels, text_delta, levels); its sum is maximised.
            pixels: (B, C, H, W) in [0, 1].
            text_shape: (N, D) of the text nodes' vectors; None where there are none to attack.
            levels: number of tree levels; 1 is a flat set of classes.
            generator: source of random starts; None draws from torch's global one.

        Raises:
            TypeError, ValueError: see `check_pixels`.
            NanError: NaN gradients.
            NoGradientError: the loss does not depend on the pixels.
        """
        raise NotImplementedError(f"{type(self).__name__} has no perturb(loss, pixels, ...)")
