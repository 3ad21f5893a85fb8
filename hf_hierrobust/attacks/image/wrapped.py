"""Attacks around another attack: with its name and budget, and another aim."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...classifiers.freezing import frozen
from ...threat import ThreatModel
from .base import ATTACKS, Attack, AttackResult
from .victim import Victim


@dataclass(kw_only=True)
class WrappedAttack:
    """Base of what is called like an `Attack` and runs one.

    Args:
        attack: the attack to run, e.g. ``PGD(eps="4/255")``.

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


class CraftingAttack(WrappedAttack):
    """Base of those that craft images in one go, for others to judge too; subclasses implement `craft`."""

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
        if len(rows) == 0:
            return AttackResult(adversarial, clean_correct, robust, 0.0)
        made, spent = self.craft(classifier, pixels[rows], labels[rows], search, generator)
        judge = Victim(classifier)
        with frozen(classifier), torch.autocast(pixels.device.type, enabled=False):
            adversarial[rows], robust[rows] = made, ~judge.fooled(made, labels[rows])
        judge.forwards += spent.forwards
        judge.backwards += spent.backwards
        return AttackResult(adversarial, clean_correct, robust, spent.zero_gradient, judge.cost(len(rows)))

    def craft(
        self,
        classifier: Callable[[Tensor], Tensor],
        pixels: Tensor,
        labels: Tensor,
        search: Callable[[Tensor], Tensor] | None,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Victim]:
        """Adversarial pixels (N, C, H, W) for images that are right when clean, and what it took."""
        raise NotImplementedError(
            f"{type(self).__name__} has no craft(classifier, pixels, labels, search, generator)"
        )
