"""The frame every attack runs in: input checks, frozen model, result.

A model is any callable from pixels in [0, 1] (B, C, H, W) to logits (B, K).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ...classifiers.freezing import Classifier, frozen
from ...registry import Registry
from ...threat import ThreatModel

ATTACKS: Registry[Attack] = Registry(
    "attack", "hf_hierrobust.attacks.image", "hf_hierrobust.attacks.training"
)


class AttackResult(NamedTuple):
    """Outcome of one attack on one batch.

    Attributes:
        adversarial: pixels (B, C, H, W): a misclassified iterate where one was found, else the last.
        clean_correct: (B,) bool, the unperturbed image is classified correctly.
        robust_correct: (B,) bool, correct on the clean image and on every iterate that was tried.
        zero_gradient: fraction of attacked images whose first gradient was exactly zero. Anything
            well above 0 says that the gradient is masked and the robust accuracy is not to be believed.
    """

    adversarial: Tensor
    clean_correct: Tensor
    robust_correct: Tensor
    zero_gradient: float


def check_pixels(pixels: Tensor, name: str = "pixels") -> None:
    """Refuse anything but a finite float image batch in [0, 1].

    Raises:
        TypeError: not a floating-point tensor.
        ValueError: wrong number of dimensions, empty, NaN or infinity, or values outside [0, 1].
    """
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


@dataclass(kw_only=True)
class Attack:
    """Base of all attacks: validates, freezes the model, runs, reports.

    Subclasses are dataclasses with a ``name`` and implement `run`.
    """

    name: ClassVar[str] = ""
    evaluation_only: ClassVar[frozenset[str]] = frozenset()
    """Options without effect in training, where the objective's inner loss is maximised once."""
    threat: ThreatModel = field(default_factory=ThreatModel)

    def __call__(
        self,
        model: Classifier,
        pixels: Tensor,
        labels: Tensor,
        *,
        search_model: Classifier | None = None,
        generator: torch.Generator | None = None,
    ) -> AttackResult:
        """Attack a batch.

        Args:
            model: pixels (B, C, H, W) in [0, 1] -> logits (B, K). Its verdicts decide.
            pixels, labels: (B, C, H, W) in [0, 1] and (B,).
            search_model: callable used for gradients instead, e.g. the same model under bf16
                autocast; an image counts as broken only if ``model`` agrees.
            generator: source of random starts; the global generator is never touched when given.

        Raises:
            TypeError, ValueError: see `check_pixels`; labels of the wrong shape or outside the logits'
                classes; NaN logits or gradients.
        """
        pixels = attackable(pixels)
        search_model = model if search_model is None else search_model
        with frozen(model), frozen(search_model):
            with torch.no_grad():
                logits = model(pixels)
            check_labels(labels, *logits.shape)
            # An arg-max over NaN is a verdict about nothing.
            _refuse_nan(logits, "the model's logits are NaN")
            clean = logits.argmax(1) == labels
            result = self.run(model, search_model, pixels, labels, clean, generator)
        size = self.threat.size(result.adversarial - pixels)
        assert (size <= self.threat.eps * (1 + 1e-4) + 1e-6).all(), "an attack left its threat model"
        return result

    def run(
        self,
        model: Classifier,
        search_model: Classifier,
        pixels: Tensor,
        labels: Tensor,
        clean_correct: Tensor,
        generator: torch.Generator | None,
    ) -> AttackResult:
        raise NotImplementedError

    def describe(self) -> dict:
        """The attack's constants, for records and cards."""
        constants = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "threat"}
        for name, value in constants.items():
            if callable(value):
                constants[name] = getattr(value, "__name__", type(value).__name__)
        return {"name": self.name, **asdict(self.threat), **constants}

    def describe_training(self) -> dict:
        """The constants that training with this attack uses."""
        return {k: v for k, v in self.describe().items() if k not in self.evaluation_only}


class NanError(ValueError):
    """NaN logits or gradients: a verdict about them would be about nothing."""


def input_gradients(loss: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of the summed loss; parameters' ``.grad`` stays untouched.

    Raises:
        NanError: NaN in the gradient of the first input, the pixels. Its sign is 0: the attack would
            stand still and the image pass for robust.
    """
    gradients = torch.autograd.grad(loss.sum(), inputs)
    _refuse_nan(gradients[0], "the gradient of the attack loss is NaN")
    return gradients


def check_labels(labels: Tensor, num_images: int, num_classes: int) -> None:
    """Refuse labels that are not one class an image.

    Raises:
        ValueError: not of shape (num_images,), or outside 0..num_classes-1.
    """
    if labels.shape != (num_images,):
        # (B, 1) would broadcast against the (B,) predictions instead of failing.
        raise ValueError(f"labels have shape {tuple(labels.shape)}: expected ({num_images},), one per image")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f"labels span [{low}, {high}] but there are {num_classes} classes")


def _refuse_nan(values: Tensor, what: str) -> None:
    bad = values.isnan().flatten(1).any(1)
    if bad.any():
        raise NanError(
            f"{what} for {int(bad.sum())} of {len(bad)} images, first for image {int(bad.nonzero()[0])}: "
            "the precision overflows or the model divides by zero"
        )
