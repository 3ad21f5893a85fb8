"""Images and texts attacked together, in the orders of the literature.

Source: MMCoA (2404.19287), its evaluation modes 1 to 4; Co-Attack's order (2206.09391) for the text first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...classifiers.freezing import frozen
from ..image.base import Attack, attackable, check_labels
from ..image.pgd import PGD
from .base import TextAttack, check_texts
from .scores import PromptCrossEntropy, coordinate_kl
from .words import BertAttack

if TYPE_CHECKING:
    from ...modeling.text_encoder import TextEncoder

ImageEncoder = Callable[[Tensor], Tensor]
Order = Literal["independent", "text_first", "joint"]


class MultimodalResult(NamedTuple):
    """Outcome of one attack on B images and K prompts; t, x are the originals, t', x' the attacked ones.

    Attributes:
        adversarial: pixels (B, C, H, W).
        pair_adversarial: those of the pair: the same, but in the independent order, where an attack with a
            `perturb` gives its last iterate. The first one that breaks an image against the clean prompts is
            barely over the boundary, and other prompts would undo it.
        prompts: the K attacked prompts.
        clean_correct, image_correct, text_correct, pair_correct: (B,) bool, correct on (x, t), (x', t),
            (x, t') and the pair's (x', t'): MMCoA's modes 0, 1, 2 and, by the order, 3 or 4.
        robust_correct: (B,) bool, correct on all four: the attacker may leave either side alone. Altered
            prompts can undo what the pixels did, so that the pair alone may look more robust than the
            image.
        zero_gradient: see `AttackResult`; None in the joint order, which does not measure it.
    """

    adversarial: Tensor
    pair_adversarial: Tensor
    prompts: list[str]
    clean_correct: Tensor
    image_correct: Tensor
    text_correct: Tensor
    pair_correct: Tensor
    robust_correct: Tensor
    zero_gradient: float | None


@dataclass(kw_only=True)
class MultimodalAttack:
    """Attack the pixels and the class prompts of a zero-shot classifier.

    For image-text retrieval pass B captions as prompts and ``arange(B)`` as labels.

    Args:
        image_attack: any `Attack`; the joint order needs one with `perturb`, such as `PGD`.
        text_attack: any `TextAttack`.
        order: ``"independent"``: the pixels against the clean prompts, and the prompts, each without the
            other (MMCoA's mode 3). ``"text_first"``: the prompts, then the pixels against the attacked
            prompts. ``"joint"``: the prompts, then pixels that maximise
            ``KL(p(f(x)) || p(f(x'))) + text_weight KL(p(g(t'_y)) || p(f(x')))`` with `coordinate_kl` and the
            attacked prompt of the image's own class y (MMCoA's mode 4).
        text_weight: of the second term, 3 as published.
        text_score: what the prompts' attack maximises: ``"label_free"``, as published, or ``"images"``, the
            cross-entropy of the given clean images, one prompt altered at a time.
    """

    name: ClassVar[str] = "multimodal"
    image_attack: Attack = field(default_factory=PGD)
    text_attack: TextAttack = field(default_factory=BertAttack)
    order: Order = "independent"
    text_weight: float = 3.0
    text_score: Literal["label_free", "images"] = "label_free"

    def __post_init__(self):
        if self.order not in ("independent", "text_first", "joint"):
            raise ValueError(f"order={self.order!r}: choose 'independent', 'text_first' or 'joint'")
        if self.text_score not in ("label_free", "images"):
            raise ValueError(f"text_score={self.text_score!r}: choose 'label_free' or 'images'")
        if not 0 <= self.text_weight < math.inf:
            raise ValueError(f"text_weight={self.text_weight} must be a finite number, not negative")
        if self.order == "joint" and getattr(self.image_attack, "restarts", 1) > 1:
            raise ValueError("order='joint' starts once: leave image_attack.restarts at 1")
        if self.order == "joint" and not hasattr(self.image_attack, "perturb"):
            raise TypeError(
                f"order='joint' maximises its own loss, which {type(self.image_attack).__name__} cannot: "
                "give an image_attack with a perturb method, such as PGD"
            )

    def __call__(
        self,
        encode_image: ImageEncoder,
        encoder: TextEncoder,
        prompts: Sequence[str],
        pixels: Tensor,
        labels: Tensor,
        *,
        attacked_prompts: Sequence[str] | None = None,
        logit_scale: Tensor | float | None = None,
        generator: torch.Generator | None = None,
    ) -> MultimodalResult:
        """Attack a batch of images and the prompts of all classes.

        Args:
            encode_image: pixels (B, C, H, W) in [0, 1] -> embeddings (B, D), not normalised, e.g.
                `ZeroShotClassifier.features`.
            encoder: text side of the same model.
            prompts: K class prompts, one a class.
            pixels, labels: (B, C, H, W) in [0, 1] and (B,).
            attacked_prompts: K prompts from an earlier call: the label-free attack on them does not depend
                on the images, so that one will do for a whole data set.
            logit_scale: CLIP's multiplier; None takes the model's.
            generator: source of random starts.

        Raises:
            TypeError, ValueError: see `check_pixels` and `check_texts`; labels that name no prompt, or
                another number of attacked prompts.
        """
        prompts, pixels = check_texts(prompts, "prompts"), attackable(pixels)
        check_labels(labels, len(pixels), len(prompts))
        if attacked_prompts is not None and len(attacked_prompts) != len(prompts):
            raise ValueError(
                f"attacked_prompts has {len(attacked_prompts)} texts but there are {len(prompts)} prompts"
            )
        with frozen(encode_image), frozen(encoder):
            scale = encoder.module.logit_scale.detach().exp() if logit_scale is None else logit_scale
            text = encoder(prompts)
            with torch.no_grad():
                image = encode_image(pixels)
            if attacked_prompts is None:
                score = None
                if self.text_score == "images":
                    score = PromptCrossEntropy(image, labels, text, scale)
                attacked_prompts = self.text_attack(prompts, encoder, score=score, generator=generator).texts
            attacked_text = encoder(attacked_prompts)

            zero_gradient = None
            if self.order == "joint":
                adversarial = self._joint(encode_image, image, attacked_text[labels], pixels, generator)
            else:
                target = text if self.order == "independent" else attacked_text
                classifier = _Classifier(encode_image, target, scale, encoder.module)
                result = self.image_attack(classifier, pixels, labels, generator=generator)
                adversarial, zero_gradient = result.adversarial, result.zero_gradient
            paired = adversarial
            if self.order == "independent" and hasattr(self.image_attack, "perturb"):
                paired = self._last_iterate(classifier, pixels, labels, generator)
            with torch.no_grad():
                attacked_image = encode_image(adversarial)
                paired_image = attacked_image if paired is adversarial else encode_image(paired)
        correct = [
            _logits(features, prompt_features, scale).argmax(1) == labels
            for features, prompt_features in (
                (image, text),
                (attacked_image, text),
                (image, attacked_text),
                (paired_image, attacked_text),
            )
        ]
        robust = torch.stack(correct).all(0)
        return MultimodalResult(adversarial, paired, list(attacked_prompts), *correct, robust, zero_gradient)

    def _last_iterate(
        self, classifier: _Classifier, pixels: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        def loss(attacked: Tensor, *_) -> Tensor:
            return F.cross_entropy(classifier(attacked), labels, reduction="none")

        return self.image_attack.perturb(loss, pixels, generator=generator)[0].pixels

    def _joint(
        self,
        encode_image: ImageEncoder,
        image: Tensor,
        own_text: Tensor,
        pixels: Tensor,
        generator: torch.Generator | None,
    ) -> Tensor:
        def loss(attacked: Tensor, *_) -> Tensor:
            features = encode_image(attacked)
            return coordinate_kl(image, features) + self.text_weight * coordinate_kl(own_text, features)

        return self.image_attack.perturb(loss, pixels, generator=generator)[0].pixels

    def describe(self) -> dict:
        """The attack's constants, for records and cards."""
        return {
            "name": self.name,
            "order": self.order,
            "text_weight": self.text_weight,
            "text_score": self.text_score,
            "image": self.image_attack.describe(),
            "text": self.text_attack.describe(),
        }


class _Classifier:
    """Pixels to cosine logits against fixed prompt embeddings; ``module`` is what attacks freeze."""

    def __init__(self, encode_image: ImageEncoder, text: Tensor, scale: Tensor | float, module: nn.Module):
        self.module, self._encode_image, self._text, self._scale = module, encode_image, text, scale

    def __call__(self, pixels: Tensor) -> Tensor:
        return _logits(self._encode_image(pixels), self._text, self._scale)


def _logits(image: Tensor, text: Tensor, scale: Tensor | float) -> Tensor:
    return scale * F.normalize(image.float(), dim=-1) @ F.normalize(text.float(), dim=-1).T
