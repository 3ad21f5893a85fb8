"""Any network as a classifier: pixels in [0, 1] in, logits (B, K) out."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from .behind import modules_behind

_HALF = (torch.float16, torch.bfloat16)


class Classifier:
    """Callable from pixels to logits around a network that normalises nothing itself, or around any callable.

    A network with weights in half precision runs in fp32, on copies of them: a step of 1/255 is lost in
    bf16's rounding, and gradients underflow in fp16.

    Args:
        net: pixels (B, C, H, W), normalised by ``mean`` and ``std``, to logits (B, K): as a tensor, as first
            matrix of a tuple or list, or as ``logits`` of a mapping or `ModelOutput`.
        mean, std: per channel, in the scale of pixels in [0, 1]; None where the network normalises.
        autocast: run the network in this type, for a cheaper search; None is fp32.

    Raises:
        TypeError: ``net`` is not callable.
        ValueError: mean and std that do not fit together, or are in the scale of 8-bit images.
    """

    holds_constants: ClassVar[bool] = True
    """Mean and standard deviation decide answers as the user's own constants do."""

    def __init__(
        self,
        net: Callable[[Tensor], Tensor],
        mean: Sequence[float] | Tensor | None = None,
        std: Sequence[float] | Tensor | None = None,
        autocast: torch.dtype | None = None,
    ):
        if not callable(net):
            raise TypeError(f"net is a {type(net).__name__}: pass a callable from pixels to logits")
        self.net, self.autocast = net, autocast
        self.mean, self.std = _per_channel(mean, "mean"), _per_channel(std, "std")
        if self.std is not None and not (self.std > 0).all():
            raise ValueError(f"std={self.std.tolist()} must be positive: pixels are divided by it")
        if self.mean is not None and self.mean.max() > 1:
            raise ValueError(
                f"mean={self.mean.tolist()} is in the scale of 8-bit images: divide mean and std by 255, "
                "pixels are in [0, 1]"
            )

    def with_autocast(self, dtype: torch.dtype | None) -> Classifier:
        """The same classifier with its network under autocast."""
        return Classifier(self.net, self.mean, self.std, dtype)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Pixels (B, C, H, W) in [0, 1] to logits (B, K), fp32 or wider.

        Raises:
            TypeError, ValueError: what the network gives is no logits (B, K) of at least two classes.
        """
        x = pixels
        for values, apply in ((self.mean, torch.sub), (self.std, torch.div)):
            if values is not None:
                if values.numel() not in (1, x.shape[1]):
                    raise ValueError(
                        f"mean and std have {values.numel()} channels but the pixels {x.shape[1]}: give one "
                        "value a channel"
                    )
                x = apply(x, values.to(x).view(1, -1, 1, 1))
        if x is pixels:  # a network that normalises in place would write into what is attacked
            x = pixels.clone()
        context = contextlib.nullcontext()
        if self.autocast is not None:
            context = torch.autocast(x.device.type, dtype=self.autocast)
        with context:
            return read_logits(self._forward(x), len(pixels))

    def _forward(self, x: Tensor):
        if not isinstance(self.net, nn.Module):
            return self._through_a_function(x)
        dtype = _dtype(self.net) or x.dtype
        if dtype not in _HALF:
            return self.net(x.to(dtype))
        warnings.warn(
            f"the network has {dtype} weights: it is attacked and judged in float32, on copies of them",
            stacklevel=4,
        )
        state = dict(self.net.named_parameters()) | dict(self.net.named_buffers())
        wide = {name: t.float() for name, t in state.items() if t.dtype in _HALF}
        return torch.func.functional_call(self.net, wide, (x.float(),))

    def _through_a_function(self, x: Tensor):
        try:
            return self.net(x)
        except RuntimeError as error:
            dtype = next(filter(None, map(_dtype, modules_behind(self.net))), None)
            if "type" not in str(error) or dtype in (None, x.dtype):
                raise
            if dtype in _HALF:
                raise TypeError(
                    f"the classifier refuses {x.dtype} pixels: the network behind it has {dtype} weights; "
                    "hand over the network itself, Classifier(net, mean, std), or its float() copy"
                ) from error
            return self.net(x.to(dtype))


def _dtype(net: nn.Module) -> torch.dtype | None:
    """Of the first floating-point weight."""
    return next((t.dtype for t in (*net.parameters(), *net.buffers()) if t.is_floating_point()), None)


def as_classifier(model: Callable[[Tensor], Tensor]) -> Classifier:
    """The callable itself if it is a `Classifier`, else wrapped in one: what it returns is checked."""
    return model if isinstance(model, Classifier) else Classifier(model)


def read_logits(output: object, num_images: int) -> Tensor:
    """Logits (B, K), fp32 or wider, out of whatever a network returned.

    Args:
        output: a tensor; a tuple or list, whose first matrix counts (a loss may stand before it); a mapping
            or `ModelOutput`, whose ``logits`` or ``logits_per_image`` count, or its only matrix.
        num_images: B.

    Raises:
        TypeError: no floating-point tensor among it.
        ValueError: of another shape than (B, K) with at least two classes.
    """
    logits = _find(output, num_images)
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"the classifier returned a {type(output).__name__} without logits {_contents(output)}: return a "
            "tensor (B, K), or wrap the model in a function that does"
        )
    shape = tuple(logits.shape)
    if shape in ((num_images,), (num_images, 1)):
        raise ValueError(
            f"the classifier returned one score an image, shape {shape}: return one logit a class, of two "
            "classes torch.stack([torch.zeros_like(s), s], dim=1)"
        )
    if len(shape) != 2 or shape[0] != num_images:
        raise ValueError(
            f"the classifier returned shape {shape} for {num_images} images: expected logits "
            f"({num_images}, K)"
        )
    if not logits.is_floating_point():
        raise TypeError(f"the classifier returned {logits.dtype} values: logits are floating-point numbers")
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _find(output: object, num_images: int) -> object:
    if isinstance(output, Tensor):
        return output
    for name in ("logits", "logits_per_image"):
        value = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(value, Tensor):
            return value
    values = list(output.values()) if isinstance(output, Mapping) else output
    if not isinstance(values, (tuple, list)):
        return None
    matrices = [v for v in values if isinstance(v, Tensor) and v.ndim == 2 and len(v) == num_images]
    if isinstance(output, Mapping) and len(matrices) > 1:
        return None  # which one, only the caller knows
    scores = [v for v in values if isinstance(v, Tensor) and v.shape == (num_images,)]
    return next(iter([*matrices, *scores]), None)


def _contents(output: object) -> str:
    if isinstance(output, Mapping):
        return f"(it has {', '.join(map(str, output)) or 'nothing'})"
    if isinstance(output, (tuple, list)):
        return f"(of {', '.join(type(v).__name__ for v in output) or 'nothing'})"
    return "(B, K)"


def _per_channel(values: Sequence[float] | Tensor | None, name: str) -> Tensor | None:
    if values is None:
        return None
    try:
        found = torch.as_tensor(values, dtype=torch.float32).flatten()
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name}={values!r} must be one number a channel") from None
    if found.numel() == 0 or not torch.isfinite(found).all():
        raise ValueError(f"{name}={values!r} must be one finite number a channel")
    return found
