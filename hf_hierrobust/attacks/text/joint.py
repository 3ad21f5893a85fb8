"""Pixels attacked for the sake of attacked prompts: MMCoA's joint loss (2404.19287), and an attack on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...classifiers.freezing import frozen
from ...classifiers.shared import parts_of
from ..image.base import Attack
from ..image.victim import Victim
from ..image.wrapped import CraftingAttack
from .scores import coordinate_kl


def joint_loss(image: Tensor, own_text: Tensor, text_weight: float) -> Callable[[Tensor, Tensor], Tensor]:
    """``KL(p(f(x)) || p(f(x'))) + text_weight KL(p(g(t'_y)) || p(f(x')))`` of attacked embeddings f(x').

    Args:
        image, own_text: (B, D) embeddings of the clean images and of their classes' attacked prompts.

    Returns:
        Of embeddings (M, D) and the rows (M,) of their images.
    """

    def loss(features: Tensor, rows: Tensor) -> Tensor:
        to_text = coordinate_kl(own_text[rows], features)
        return coordinate_kl(image[rows], features) + text_weight * to_text

    return loss


@dataclass(kw_only=True)
class JointAttack(CraftingAttack):
    """The pixels' part of the joint order for a zero-shot classifier with attacked prompts (MMCoA's mode 4).

    Args:
        attack: has a ``loss`` option, whose place `joint_loss` takes.
        text: (K, D) embeddings of the classes' attacked prompts.
        text_weight: of the second term, 3 as published.

    Raises:
        ValueError: an attack without a name of its own.
        TypeError: it has no loss to replace.
    """

    text: Tensor
    text_weight: float = 3.0

    def __post_init__(self):
        super().__post_init__()
        if not has_loss(self.attack):
            raise TypeError(
                f"the joint order maximises its own loss, which {type(self.attack).__name__} cannot: give an "
                "attack with a loss option, such as PGD"
            )

    def describe(self) -> dict:
        """The attack's constants, with the joint loss as its own."""
        return self.attack.describe() | {"loss": "joint", "text_weight": self.text_weight}

    def craft(self, classifier, pixels: Tensor, labels: Tensor, search, generator) -> tuple[Tensor, Victim]:
        """See `CraftingAttack`; labels are prompts' rows."""
        encode = parts_of(classifier).stem
        steer = encode if search is None else parts_of(search).stem
        with frozen(classifier, search), torch.no_grad():
            loss = joint_loss(encode(pixels), self.text.to(pixels.device)[labels], self.text_weight)
        attack, numbers = replace(self.attack, loss=loss), torch.arange(len(pixels), device=pixels.device)
        head = parts_of(classifier).head
        made, spent = attack.to_the_end(
            encode,
            pixels,
            numbers,
            search=steer,
            generator=generator,
            read=lambda features, rows: (head(features), labels[rows]),
        )
        spent.forwards += len(pixels)
        return made, spent


def has_loss(attack: Attack) -> bool:
    """Whether a callable may take the place of what the attack maximises."""
    try:
        replace(attack, loss=coordinate_kl)
    except (TypeError, ValueError):  # no such option, or names only
        return False
    return True
