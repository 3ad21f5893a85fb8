"""An attack that goes on after its success, for images that are to fool others too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...threat import ThreatModel
from .base import ATTACKS, Attack, AttackResult
from .victim import Victim


@dataclass(kw_only=True)
class LastIterates:
    """Any attack, never told that it has succeeded; see `Attack.to_the_end`.

    The first iterate that fools the classifier is barely over its boundary: another classifier, other prompts
    or a defence undo it, and would seem more robust than they are.

    Args:
        attack: the attack to run.

    Raises:
        ValueError: an attack without a name of its own.
    """

    attack: Attack

    def __post_init__(self):
        ATTACKS.check(self.attack)

    @property
    def name(self) -> str:
        return self.attack.name

    @property
    def threat(self) -> ThreatModel:
        return self.attack.threat

    def describe(self) -> dict:
        """The attack's constants, and that it goes on."""
        return self.attack.describe() | {"to_the_end": True}

    def __call__(
        self,
        classifier: Callable[[Tensor], Tensor],
        pixels: Tensor,
        labels: Tensor,
        *,
        search: Callable[[Tensor], Tensor] | None = None,
        generator: torch.Generator | None = None,
        clean_correct: Tensor,
    ) -> AttackResult:
        """See `Attack.__call__`, which has checked the input in an evaluation."""
        rows, adversarial, robust = clean_correct.nonzero()[:, 0], pixels.clone(), clean_correct.clone()
        victim = Victim(classifier)
        if len(rows):
            made, victim = self.attack.to_the_end(
                classifier, pixels[rows], labels[rows], search=search, generator=generator
            )
            adversarial[rows] = made
            robust[rows] = ~Victim.fooled(victim, made, labels[rows])
        return AttackResult(adversarial, clean_correct, robust, victim.zero_gradient, victim.cost(len(rows)))
