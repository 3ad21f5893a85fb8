"""Attacks with a target: a wrong class inside the image's own superclass, or one outside of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...classifiers.classifier import as_classifier
from ...classifiers.freezing import frozen
from ...options import check_choice
from ..base import attackable, check_labels
from .base import AttackResult
from .criteria import misclassified
from .victim import Cost
from .wrapped import WrappedAttack

TARGETS = ("within", "outside")


@dataclass(kw_only=True)
class SuperclassTarget(WrappedAttack):
    """Any attack, aimed at some of the wrong classes; another mistake is no success.

    It is no attack of its own but a view of the classifier in which exactly the target classes compete with
    the label, so that every loss and every rule about few classes holds in it.

    Args:
        attack: the attack to run, e.g. ``PGD(eps="4/255")``.
        to_superclass: (K,) superclass of each of the classifier's classes.
        target: ``"within"``: the prediction is to be another class of the same superclass (a kit fox taken
            for a wolf); ``"outside"``: a class of another superclass (a kit fox taken for a mushroom).
        level: of the superclasses in their tree, for the records.

    Raises:
        ValueError: an unknown target, an attack without a name of its own.
    """

    to_superclass: Tensor
    target: Literal["within", "outside"]
    level: int = 1

    def __post_init__(self):
        super().__post_init__()
        check_choice(self, "target", TARGETS)

    def describe(self) -> dict:
        """The attack's constants, and what it is aimed at."""
        return self.attack.describe() | {"target": f"{self.target} superclass", "target_level": self.level}

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
        """See `Attack.__call__`; ``robust_correct`` says that the target was not reached."""
        pixels = attackable(pixels)
        with frozen(classifier), torch.no_grad():
            labels = check_labels(labels, len(pixels), len(self.to_superclass), pixels.device)
            if clean_correct is None:
                clean_correct = ~misclassified(as_classifier(classifier)(pixels), labels)
        adversarial, robust = pixels.clone(), clean_correct.clone()
        seen, zero, forwards, backwards = 0, 0.0, 0.0, 0.0
        for rows, view, truth in self._views(labels, clean_correct):
            result = self.attack(
                _View(classifier, view),
                pixels[rows],
                truth,
                search=None if search is None else _View(search, view),
                generator=generator,
                clean_correct=torch.ones_like(rows, dtype=torch.bool),
            )
            adversarial[rows], robust[rows] = result.adversarial, result.robust_correct
            seen += len(rows)
            zero += result.zero_gradient * len(rows)
            forwards += result.cost.forwards * len(rows)
            backwards += result.cost.backwards * len(rows)
        # An image without a target, as of a superclass's only class, costs nothing and stands.
        images = max(int(clean_correct.sum()), 1)
        cost = Cost(forwards / images, backwards / images)
        return AttackResult(adversarial, clean_correct, robust, zero / max(seen, 1), cost)

    def _views(self, labels: Tensor, attacked: Tensor):
        """Rows that share a view of the logits, the view, and their labels in it."""
        superclass = self.to_superclass.to(labels.device)
        if self.target == "outside":
            rows = attacked.nonzero()[:, 0]
            if len(rows) and len(superclass.unique()) > 1:
                _, place = superclass.unique(return_inverse=True)  # a superclass without classes has no logit
                yield rows, _Best(place), place[labels[rows]]
            return
        for label in labels[attacked].unique().tolist():
            siblings = (superclass == superclass[label]).nonzero()[:, 0]
            siblings = siblings[siblings != label]
            if len(siblings):
                rows = (attacked & (labels == label)).nonzero()[:, 0]
                yield rows, _Siblings(siblings), torch.zeros_like(rows)


class _View:
    """A classifier whose logits are seen through a function."""

    def __init__(self, classifier: Callable[[Tensor], Tensor], view: Callable[[Tensor], Tensor]):
        self.owner, self.view = classifier, view
        if (space := getattr(classifier, "space", None)) is not None:
            self.space = space

    def __call__(self, pixels: Tensor) -> Tensor:
        return self.view(as_classifier(self.owner)(pixels))


class _Best:
    """Logit of each superclass's best class: their arg-max is the superclass of the arg-max."""

    def __init__(self, superclass: Tensor):
        self.superclass, self.count = superclass, int(superclass.max()) + 1

    def __call__(self, logits: Tensor) -> Tensor:
        index = self.superclass.to(logits.device).expand_as(logits)
        best = torch.full((len(logits), self.count), -torch.inf, dtype=logits.dtype, device=logits.device)
        return best.scatter_reduce(1, index, logits, "amax")


class _Siblings:
    """Best of all classes but the siblings, as class 0, and the siblings."""

    def __init__(self, siblings: Tensor):
        self.siblings = siblings

    def __call__(self, logits: Tensor) -> Tensor:
        siblings = self.siblings.to(logits.device)
        rest = logits.index_fill(1, siblings, -torch.inf).amax(1, keepdim=True)
        return torch.cat([rest, logits[:, siblings]], 1)
