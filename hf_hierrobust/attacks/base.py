"""What all attacks on pixels share: a budget, checked input, gradients that are never NaN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..classifiers.behind import code_digest
from ..threat import Norm, Space, ThreatModel, parse_eps


class NanError(ValueError):
    """NaN logits or gradients: a verdict about them would be about nothing."""


@dataclass(kw_only=True)
class PixelAttack:
    """Base of evaluation and training attacks: the budget they share and how records describe them.

    Args:
        eps: radius in pixel scale [0, 1]; ``"4/255"`` is accepted and stored as a number.
        norm: ``"linf"`` (per pixel) or ``"l2"`` (per image).
        space: resolution of the perturbation, see `ThreatModel`. The attack itself perturbs the pixels it is
            given; whoever loads them reads this.

    Raises:
        ValueError: a budget, norm or space that makes no threat model.
    """

    name: ClassVar[str] = ""
    eps: float | str = 1 / 255
    norm: Norm = "linf"
    space: Space = "native"

    def __post_init__(self):
        self.eps = self.threat.eps

    @property
    def threat(self) -> ThreatModel:
        """Norm, radius and space as one value, which projects and measures."""
        return ThreatModel(norm=self.norm, eps=self.eps, space=self.space)

    def describe(self) -> dict:
        """The attack's constants, for records and cards; see `named_functions`."""
        constants = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        constants = {"name": self.name, **constants, "eps": parse_eps(self.eps, norm=self.norm)}
        return named_functions(constants)


def named_functions(constants: Mapping[str, Any]) -> dict[str, Any]:
    """Constants with functions by their names, and ``NAME_code``, which tells those of one name apart."""
    found = dict(constants)
    for name, value in constants.items():
        if callable(value):
            found[name] = getattr(value, "__name__", type(value).__name__)
            found[f"{name}_code"] = code_digest(value)
    return found


def check_pixels(pixels: Tensor, name: str = "pixels") -> None:
    """Refuse anything but a finite float image batch in [0, 1].

    Raises:
        TypeError: not a floating-point tensor.
        ValueError: wrong number of dimensions, empty, NaN or infinity, or values outside [0, 1].
    """
    if not isinstance(pixels, Tensor):
        raise TypeError(f"{name} is a {type(pixels).__name__}: pass a float tensor (B, C, H, W) in [0, 1]")
    if not torch.is_floating_point(pixels):
        raise TypeError(f"{name} has dtype {pixels.dtype}: convert 8-bit images with pixels.float() / 255")
    if pixels.ndim != 4:
        raise ValueError(f"{name} has shape {tuple(pixels.shape)}: expected (B, C, H, W)")
    if pixels.numel() == 0:
        raise ValueError(f"{name} has shape {tuple(pixels.shape)}: there is no image to attack")
    if not torch.isfinite(pixels).all():
        row = int((~torch.isfinite(pixels)).flatten(1).any(1).nonzero()[0])
        raise ValueError(f"{name} holds NaN or infinite values, first in image {row} of the batch")
    low, high = pixels.min().item(), pixels.max().item()
    if low < -1e-5:  # the rounding of x + delta, e.g. of another attack's result
        raise ValueError(
            f"{name} spans [{low:.3g}, {high:.3g}] but must lie in [0, 1]: it looks already normalised; "
            "pass do_normalize=False to the processor, the model's pixel pipeline normalises"
        )
    if high > 1 + 1e-5:
        raise ValueError(
            f"{name} spans [{low:.3g}, {high:.3g}] but must lie in [0, 1]: divide 8-bit images by 255"
        )


def attackable(pixels: Tensor) -> Tensor:
    """Checked pixels, detached, exactly within [0, 1] and in fp32 at least.

    A step of 1/255 is lost or doubled in bf16, whose spacing below 1 is 1/256.

    Raises:
        TypeError, ValueError: see `check_pixels`.
    """
    check_pixels(pixels)
    return pixels.detach().to(torch.promote_types(pixels.dtype, torch.float32)).clamp(0, 1)


def check_labels(
    labels,
    num_images: int,
    num_classes: int,
    device: torch.device | str = "cpu",
    *,
    name: str = "labels",
    of: str | None = None,
) -> Tensor:
    """Labels as one class index an image, int64 (B,) on ``device``.

    Args:
        labels: tensor, array or list of whole numbers, of any number type.
        name, of: what a message calls the labels, and whose classes they must lie in.

    Raises:
        TypeError: not numbers.
        ValueError: not of shape (num_images,), not whole, or outside 0..num_classes-1.
    """
    try:
        labels = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:  # names, None, ragged lists
        raise TypeError(f"{name} are not class indices, one an image: {error}") from None
    if labels.shape != (num_images,):
        # (B, 1) would broadcast against the (B,) predictions instead of failing.
        raise ValueError(f"{name} have shape {tuple(labels.shape)}: expected ({num_images},), one per image")
    if labels.is_complex() or (labels.is_floating_point() and (labels != labels.round()).any()):
        raise ValueError(
            f"{name} of dtype {labels.dtype} are not whole numbers: give one class index an image"
        )
    labels = labels.to(device, torch.long)
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f"{name} span [{low}, {high}] but {of or f'there are {num_classes} classes'}")
    return labels


def refuse_nan(values: Tensor, what: str, many: str = "images", one: str = "image") -> None:
    """Refuse NaN in any image's values.

    Args:
        values: (B, ...).
        what: subject and verb of the message, such as ``"the model's logits are NaN"``.
        many, one: what the B rows are.

    Raises:
        NanError: names how many images and the first.
    """
    bad = values.isnan().flatten(1).any(1)
    if bad.any():
        raise NanError(
            f"{what} for {int(bad.sum())} of {len(bad)} {many}, first for {one} {int(bad.nonzero()[0])}: "
            "the precision overflows or the model divides by zero"
        )


def input_gradients(loss: Tensor, inputs: Sequence[Tensor], retain_graph: bool = False) -> tuple[Tensor, ...]:
    """Gradients of the summed loss; parameters' ``.grad`` stays untouched.

    Args:
        inputs: the pixels or their perturbation first, then what else is attacked.
        retain_graph: True where the graph is used again.

    Raises:
        NanError: NaN in a gradient. Its sign is 0: the attack would stand still and the image pass for
            robust.
        NoGradientError: the loss does not depend on the pixels in a way that autograd can follow.
    """
    # Another input may be without influence, as the text is for a loss on images only.
    found = [None]
    if loss.requires_grad:
        found = torch.autograd.grad(loss.sum(), inputs, retain_graph=retain_graph, allow_unused=True)
    if found[0] is None:
        raise NoGradientError(
            "no gradient leads from the attacked loss to the pixels: the model computes under torch.no_grad, "
            "outside torch, or on integers (quantised); attack it without gradients, or a differentiable copy"
        )
    gradients = tuple(torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs))
    refuse_nan(gradients[0], "the gradient of the attack loss is NaN")
    for gradient in gradients[1:]:
        refuse_nan(gradient, "the gradient of the attack loss is NaN", "texts", "text")
    return gradients


class NoGradientError(TypeError):
    """The attacked callable has no gradient path from its pixels to its logits."""
