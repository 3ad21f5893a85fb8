"""The frame every attack runs in: input checks, frozen model, result.

A model is any callable from pixels in [0, 1] (B, C, H, W) to logits (B, K).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..registry import Registry
from ..threat import ThreatModel

Classifier = Callable[[Tensor], Tensor]
ATTACKS: Registry[Attack] = Registry("attack", "hf_hierrobust.attacks")


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


class Perturbation(NamedTuple):
    """One training perturbation: what the training loss is evaluated on.

    Attributes:
        pixels: (B, C, H, W) adversarial pixels in [0, 1].
        text_delta: (N, D) or (1, D), added to the text nodes' tangent vectors, or None.
        levels: tree levels that this perturbation attacked, None for all.
    """

    pixels: Tensor
    text_delta: Tensor | None = None
    levels: tuple[int, ...] | None = None


def check_pixels(pixels: Tensor, name: str = "pixels") -> None:
    """Refuse anything but a finite float image batch in [0, 1].

    Raises:
        TypeError: not a floating-point tensor.
        ValueError: wrong number of dimensions, NaN or infinity, or values outside [0, 1].
    """
    if not torch.is_floating_point(pixels):
        raise TypeError(f"{name} has dtype {pixels.dtype}: convert 8-bit images with pixels.float() / 255")
    if pixels.ndim != 4:
        raise ValueError(f"{name} has shape {tuple(pixels.shape)}: expected (B, C, H, W)")
    if not torch.isfinite(pixels).all():
        row = int((~torch.isfinite(pixels)).flatten(1).any(1).nonzero()[0])
        raise ValueError(f"{name} holds NaN or infinite values, first in image {row} of the batch")
    low, high = float(pixels.min()), float(pixels.max())
    if low < -1e-5:  # the rounding of x + delta, e.g. of another attack's result
        raise ValueError(
            f"{name} spans [{low:.3g}, {high:.3g}] but must lie in [0, 1]: it looks already normalised; "
            "pass do_normalize=False to the processor, normalisation happens inside the model's pixel pipeline"
        )
    if high > 1 + 1e-5:
        raise ValueError(f"{name} spans [{low:.3g}, {high:.3g}] but must lie in [0, 1]: divide 8-bit images by 255")


def _modules(model: Classifier) -> list[nn.Module]:
    """The torch modules behind a callable: itself, or what it names in ``.module``."""
    found = [model, getattr(model, "module", None)]
    return [m for m in found if isinstance(m, nn.Module)]


@contextmanager
def frozen(model: Classifier) -> Iterator[None]:
    """Evaluation mode, parameters frozen, gradients enabled; everything is restored on exit.

    Freezing saves the memory of the weight-gradient graph; `torch.autograd.grad` would leave
    ``.grad`` alone without it.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError("attacks need gradients: call them outside torch.inference_mode()")
    modules = [m for top in _modules(model) for m in top.modules()]
    modes = [m.training for m in modules]
    params = [p for top in _modules(model) for p in top.parameters()]
    flags = [p.requires_grad for p in params]
    try:
        for m in modules:
            m.training = False
        for p in params:
            p.requires_grad_(False)
        with torch.enable_grad():
            yield
    finally:
        for m, mode in zip(modules, modes):
            m.training = mode
        for p, flag in zip(params, flags):
            p.requires_grad_(flag)


@dataclass(kw_only=True)
class Attack:
    """Base of all attacks: validates, freezes the model, runs, reports.

    Subclasses are dataclasses with a ``name`` and implement `run`.
    """

    name: ClassVar[str] = ""
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
            TypeError, ValueError: see `check_pixels`; or labels outside the logits' classes.
        """
        check_pixels(pixels)
        with frozen(model), frozen(search_model or model):
            with torch.no_grad():
                logits = model(pixels)
            if int(labels.min()) < 0 or int(labels.max()) >= logits.shape[1]:
                raise ValueError(
                    f"labels span [{int(labels.min())}, {int(labels.max())}] but the model has "
                    f"{logits.shape[1]} classes"
                )
            clean = logits.argmax(1) == labels
            result = self.run(model, search_model or model, pixels.detach(), labels, clean, generator)
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
        constants = asdict(self)
        constants.pop("threat")
        plain = {k: v for k, v in constants.items() if not callable(v)}
        return {"name": self.name, **asdict(self.threat), **plain}
