"""One training step without its optimiser: attack the batch, forward everything once, name the terms.

Two rules keep the gradients right under DDP, accumulation and mixed precision: the attack runs on the
unwrapped, frozen model and differentiates with respect to its perturbation only; the training graph is
built only through ``model(...)``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..attacks import Perturbation, TrainingAttack
from ..classifiers import frozen
from ..objectives import Objective, Targets
from .batch import Batch, Draw
from .views import BatchViews


class RobustStep:
    """A batch in, the objective's named terms out.

    Args:
        objective, attack: what is trained and what it is trained against; no attack trains on clean images.
        views: the model's forwards, as objectives see them.

    Attributes:
        num_examples: of each batch's first images so many are kept, for pictures.
        examples: those images of the last batch, clean and as first perturbed.
    """

    num_examples = 0
    examples: tuple[Tensor, Tensor] | None = None

    def __init__(self, objective: Objective, attack: TrainingAttack | None, views: BatchViews):
        self.objective, self.attack, self.views = objective, attack, views
        self._moved = False

    def terms(self, model: nn.Module, batch: Batch, draw: Draw) -> tuple[dict[str, Tensor], object]:
        """Attack, forward, sum up.

        Args:
            model: as the optimiser's side wraps it; the only way to gradients of its weights.
            draw: gives the generator of the attack's random start.

        Returns:
            Named 0-dim terms, whose sum is the loss, and the model's output.

        Raises:
            NanError: the gradient of the attack is NaN: the weights have diverged.
            ValueError: see `perturb`.
        """
        perturbations, targets = self.perturb(batch, draw)
        views, targets, output = self.views.training(model, batch, perturbations, targets)
        return self.objective.loss(views, targets), output

    def perturb(self, batch: Batch, draw: Draw) -> tuple[list[Perturbation], Targets]:
        """Training perturbations of a batch under the current weights, and the targets they were found for.

        Raises:
            ValueError: no pixel of the first batch moved: nothing adversarial would be trained.
        """
        targets = self.views.targets(batch)
        if self.attack is None:
            return [Perturbation(batch.pixels)], targets
        with frozen(self.views.model):
            found = self.attack.perturb(
                self.views.inner_loss(batch, targets),
                batch.pixels,
                text_shape=self.views.text_shape,
                levels=self.objective.num_levels,
                generator=draw(),
            )
        if not self._moved and all(torch.equal(p.pixels, batch.pixels) for p in found):
            raise ValueError(
                "the attack moved no pixel in the first step: its inner loss has no gradient at the start. "
                "One that is least at the clean image needs a random_start other than 'zero'"
            )
        self._moved = True
        if self.num_examples:
            kept = (x[: self.num_examples].detach().clone() for x in (batch.pixels, found[0].pixels))
            self.examples = tuple(kept)
        return found, targets

    def calibrate(self, batch: Batch) -> None:
        """Let the objective set its constants from clean images."""
        model, clean = self.views.model, [Perturbation(batch.pixels)]
        with frozen(model), torch.no_grad():
            views, *_ = self.views.training(model, batch, clean, Targets(batch.labels))
            self.objective.calibrate(views[0], batch.labels)
