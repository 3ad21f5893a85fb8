"""The optimizer's parameter group of the hyperbolic head's scales."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.optim import Optimizer
from transformers import Trainer

if TYPE_CHECKING:
    from .arguments import RobustTrainingArguments

SCALE_RATE = 10
"""The scales' default learning rate, in learning rates, under optimisers that normalise gradients."""


def scale_rate(args: RobustTrainingArguments) -> float:
    """Learning rate of the scales, before the schedule."""
    if args.scale_learning_rate is not None:
        return args.scale_learning_rate
    plain = "sgd" in str(getattr(args.optim, "value", args.optim))  # its step grows with the gradient
    return args.learning_rate * (1 if plain else SCALE_RATE)


def group_scales(optimizer: Optimizer, head: nn.Module, learning_rate: float) -> None:
    """Give the head's trained scales a parameter group of their own, the last, without weight decay.

    They are logarithms of O(1) that a step of Adam moves by its rate: at a rate made for weights they would
    stand still in a short training, and the gap would order the levels by turning the text projection
    instead, which favours some classes of a level over others. Decay would pull norms towards 1.

    Args:
        optimizer: made, but without state.
        learning_rate: of the scales, before the schedule.
    """
    scales = [parameter for parameter in head.parameters() if parameter.requires_grad]
    if not scales:
        return
    own = {id(parameter) for parameter in scales}
    for group in optimizer.param_groups:
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in own]
    optimizer.add_param_group({"params": scales, "lr": learning_rate, "weight_decay": 0.0})


class ScaleRates(Trainer):
    """A trainer whose own optimizer has a group for the scales; one handed over stays as it is."""

    def create_optimizer(self, *args, **kwargs):
        given = self.optimizer is not None
        optimizer = super().create_optimizer(*args, **kwargs)
        if not given:
            group_scales(optimizer, self.model.hier_head, scale_rate(self.args))
        return optimizer
