"""The optimizer's parameter group of the hyperbolic head's scales."""

from __future__ import annotations

from torch import nn
from torch.optim import Optimizer
from transformers import Trainer

SCALE_RATE = 3.0
"""Learning rate of the scales over that of the weights, under an optimizer that normalises its steps."""


def scale_learning_rate(args) -> float:
    """Learning rate of the head's scales: as given, or by default.

    The default is three times ``learning_rate``, measured under Adam. Steps of SGD grow with the gradients,
    so that such a factor means nothing there: it is ``learning_rate``.

    Args:
        args: `RobustTrainingArguments`.
    """
    if args.scale_learning_rate is not None:
        return args.scale_learning_rate
    return args.learning_rate * (1.0 if str(args.optim.value).startswith("sgd") else SCALE_RATE)


def group_scales(optimizer: Optimizer, head: nn.Module, learning_rate: float) -> None:
    """Give the head's trained scales a parameter group of their own, the last, without weight decay.

    They are logarithms, which a step of Adam moves by its rate: at one made for weights they all but stand
    still in a short training. Decay would pull the scales towards 1.

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
            group_scales(optimizer, self.model.hier_head, scale_learning_rate(self.args))
        return optimizer
