"""One training step without its optimiser: attack the batch, forward everything once, name the terms.

Two rules keep the gradients right under DDP, accumulation and mixed precision: the attack runs on the
unwrapped, frozen model and differentiates with respect to its perturbation only; the training graph is
built only through ``model(...)``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..attacks import Perturbation, TrainingAttack, check_pixels
from ..classifiers import frozen
from ..objectives import Objective, Targets
from .texts import Batch, Captions, Draw
from .views import BatchViews


class RobustStep:
    """A batch in, the objective's named terms out.

    Args:
        objective, attack: what is trained and what it is trained against; no attack trains on clean images.
        views: the model's forwards, as objectives see them.
        captions: where the objective needs captions.
    """

    def __init__(
        self,
        objective: Objective,
        attack: TrainingAttack | None,
        views: BatchViews,
        captions: Captions | None = None,
    ):
        self.objective, self.attack, self.views, self.captions = objective, attack, views, captions
        self._moved = False

    def __call__(
        self, model: nn.Module, inputs: Mapping[str, object], draw: Draw
    ) -> tuple[dict[str, Tensor], object]:
        """Attack, forward, sum up.

        Args:
            model: as the optimiser's side wraps it; the only way to gradients of its weights.
            inputs: of the collator: ``pixels`` (B, 3, H, W) in [0, 1], ``labels`` (B,), perhaps ``captions``.
            draw: gives the generators of random starts, one after another.

        Returns:
            Named 0-dim terms, whose sum is the loss, and the model's output.

        Raises:
            NanError: the gradient of the attack is NaN: the weights have diverged.
            ValueError: see `perturb`; images without captions and labels.
        """
        batch = self.batch(inputs, draw)
        targets = self.views.targets(batch)
        perturbations = self.perturb(batch, targets, draw)
        views, targets, output = self.views.training(model, batch, perturbations, targets)
        return self.objective.loss(views, targets), output

    def batch(self, inputs: Mapping[str, object], draw: Draw) -> Batch:
        """Pixels, labels and, where the objective needs them, captions and attacked captions."""
        batch = Batch(inputs["pixels"], inputs["labels"])
        check_pixels(batch.pixels)
        if self.captions is None:
            return batch
        captions = self.captions.of(batch.labels, inputs.get("captions"))
        return batch._replace(captions=captions, attacked_captions=self.captions.attacked(captions, draw))

    def perturb(self, batch: Batch, targets: Targets, draw: Draw) -> list[Perturbation]:
        """Training perturbations of a batch, against the current weights.

        Raises:
            ValueError: no pixel of the first batch moved: nothing adversarial would be trained.
        """
        if self.attack is None:
            return [Perturbation(batch.pixels)]
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
        return found

    def calibrate(self, inputs: Mapping[str, object]) -> None:
        """Let the objective set constants from clean images; captions are the class prompts."""
        batch = Batch(inputs["pixels"], inputs["labels"])
        check_pixels(batch.pixels)
        if self.captions is not None:
            prompts = self.captions.of(batch.labels.clamp_min(0), None)
            batch = batch._replace(captions=prompts, attacked_captions=prompts)
        with frozen(self.views.model), torch.no_grad():
            clean = [Perturbation(batch.pixels)]
            views, *_ = self.views.training(self.views.model, batch, clean, Targets(batch.labels))
            self.objective.calibrate(views[0], batch.labels)
