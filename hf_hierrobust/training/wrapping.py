"""The model as several processes train it: wrapped anew for a training, whatever was done with it before."""

from __future__ import annotations

from torch import nn
from torch.nn.parallel import DistributedDataParallel


class NotAveragedError(RuntimeError):
    """Several processes would train, each alone."""


def to_prepare(model: nn.Module, wrapped: nn.Module) -> nn.Module:
    """What accelerate is to prepare for a training: the model without the marks of an earlier preparation.

    An evaluation prepares it too, but without a wrapper, and what is marked as prepared gets none later; a
    forward that an earlier trainer put under autocast would keep that one's precision.

    Args:
        wrapped: as the trainer holds it, returned itself where it is the wrapper of an earlier training.
    """
    if _averages(wrapped):
        return wrapped
    model._is_accelerate_prepared = False
    original = model.__dict__.pop("_original_forward", None)
    if original is not None:
        model.forward = original
    return model


def check_averaged(model: nn.Module, processes: int) -> None:
    """Gradients reach the other processes.

    Args:
        model: what the loss goes through.

    Raises:
        NotAveragedError: several processes, and no wrapper that averages their gradients.
    """
    if processes > 1 and not _averages(model):
        raise NotAveragedError(
            f"{processes} processes train, but the loss goes through a {type(model).__name__} that is not "
            "wrapped in DistributedDataParallel: each would train alone. Start with torchrun or accelerate "
            "launch, and hand the trainer a model that nothing else has prepared"
        )


def _averages(model: nn.Module) -> bool:
    return isinstance(getattr(model, "_orig_mod", model), DistributedDataParallel)
