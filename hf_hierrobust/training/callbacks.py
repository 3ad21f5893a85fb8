"""Checks that run beside every training."""

from __future__ import annotations

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..adapters.trainable import MovementCheck, efficient_parts
from ..modeling.reference import ReferenceModel


class InvariantsCallback(TrainerCallback):
    """Adapters move and base weights do not, in the first step; the reference stays as it was, to the end.

    The first step is the first with a learning rate above 0, which a warm-up starts without. A model without
    adapters and prompt has no first-step check.

    Args:
        reference: the frozen original, if the objective has one.

    Raises:
        FrozenWeightsError, ReferenceChangedError: and training stops.
    """

    def __init__(self, reference: ReferenceModel | None = None):
        self.reference = reference
        self._wanted, self._check = False, None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        # After a resume the next step may be one that rounds to nothing, at the end of a cosine.
        self._wanted = state.global_step == 0 and bool(efficient_parts(_core(kwargs["model"])))

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if self._wanted and any(group["lr"] > 0 for group in kwargs["optimizer"].param_groups):
            self._check = MovementCheck(_core(kwargs["model"]))

    def on_optimizer_step(self, args, state, control, **kwargs):
        # A gradient scaler skips steps that overflow.
        if self._check is not None and not getattr(kwargs["optimizer"], "step_was_skipped", False):
            self._check.verify()
            self._wanted = False
        self._check = None

    def on_train_end(self, args, state, control, **kwargs):
        if self.reference is not None:
            self.reference.assert_unchanged()


def _core(model):
    """The module behind torch.compile's wrapper."""
    return getattr(model, "_orig_mod", model)
