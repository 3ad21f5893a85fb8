"""An attack that goes on after its success, for images that are to fool others too."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .victim import Victim
from .wrapped import CraftingAttack


@dataclass(kw_only=True)
class LastIterates(CraftingAttack):
    """Any attack, never told that it has succeeded; see `Attack.to_the_end`.

    The first iterate that fools the classifier is barely over its boundary: another classifier, other prompts
    or a defence undo it, and would seem more robust than they are. So would they if the last of several
    targets or restarts spoke for all of them: the one that fools this classifier most does.
    """

    def describe(self) -> dict:
        """The attack's constants, and that it goes on."""
        return self.attack.describe() | {"to_the_end": True}

    def craft(self, classifier, pixels: Tensor, labels: Tensor, search, generator) -> tuple[Tensor, Victim]:
        return self.attack.to_the_end(classifier, pixels, labels, search=search, generator=generator)
