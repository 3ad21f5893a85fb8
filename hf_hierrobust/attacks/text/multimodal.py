"""Images and texts attacked together, in the orders of the literature.

Source: MMCoA (2404.19287), its evaluation modes 1 to 4; Co-Attack's order (2206.09391) for the text first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...classifiers.freezing import frozen
from ...options import check_choice, check_numbers
from ..base import attackable, check_labels
from ..image.base import ATTACKS, Attack
from ..image.criteria import margin
from ..image.pgd import PGD
from ..image.victim import Reading
from .base import TEXT_ATTACKS, TextAttack, check_texts
from .encoder import TextEncoder
from .joint import has_loss, joint_loss
from .scores import PromptCrossEntropy
from .words import BertAttack

ImageEncoder = Callable[[Tensor], Tensor]
Order = Literal["independent", "text_first", "joint"]


class MultimodalResult(NamedTuple):
    """Outcome of one attack on B images and K prompts; t, x are the originals, t', x' the attacked ones.

    Attributes:
        adversarial: pixels (B, C, H, W).
        pair_adversarial: those of the pair: the same, but in the independent order the iterate that goes
            deepest, see `Attack.to_the_end`. The first one that breaks an image against the clean prompts is
            barely over the boundary, and other prompts would undo it. Of several restarts, the one with the
            largest margin on the pair.
        prompts: the K attacked prompts.
        clean_correct, image_correct, text_correct, pair_correct: (B,) bool, correct on (x, t), (x', t),
            (x, t') and the pair's (x', t'): MMCoA's modes 0, 1, 2 and, by the order, 3 or 4.
        robust_correct: (B,) bool, correct on all four: the attacker may leave either side alone. Altered
            prompts can undo what the pixels did, so that the pair alone may look more robust than the
            image.
        zero_gradient: see `AttackResult`; the larger one where pixels are attacked twice.
    """

    adversarial: Tensor
    pair_adversarial: Tensor
    prompts: list[str]
    clean_correct: Tensor
    image_correct: Tensor
    text_correct: Tensor
    pair_correct: Tensor
    robust_correct: Tensor
    zero_gradient: float


@dataclass(kw_only=True)
class MultimodalAttack:
    """Attack the pixels and the class prompts of a zero-shot classifier.

    For image-text retrieval pass B captions as prompts and ``arange(B)`` as labels.

    Args:
        image_attack: any `Attack`; its loss, start and restarts hold in every order. The joint order puts its
            own loss in place of the attack's, which must have a ``loss`` option, as `PGD` has.
        text_attack: any `TextAttack`.
        order: ``"independent"``: the pixels against the clean prompts, and the prompts, each without the
            other (MMCoA's mode 3). ``"text_first"``: the prompts, then the pixels against the attacked
            prompts. ``"joint"``: the prompts, then pixels that maximise
            ``KL(p(f(x)) || p(f(x'))) + text_weight KL(p(g(t'_y)) || p(f(x')))`` with `coordinate_kl` and the
            attacked prompt of the image's own class y (MMCoA's mode 4).
        text_weight: of the second term, 3 as published.
        text_score: what the prompts' attack maximises: ``"label_free"``, as published, or ``"images"``, the
            cross-entropy of the given clean images, one prompt altered at a time.

    Raises:
        ValueError: an unknown option, or an attack without a name of its own.
        TypeError: an image attack that has no loss to replace in the joint order.
    """

    name: ClassVar[str] = "multimodal"
    image_attack: Attack = field(default_factory=PGD)
    text_attack: TextAttack = field(default_factory=BertAttack)
    order: Order = "independent"
    text_weight: float = 3.0
    text_score: Literal["label_free", "images"] = "label_free"

    def __post_init__(self):
        check_choice(self, "order", ("independent", "text_first", "joint"))
        check_choice(self, "text_score", ("label_free", "images"))
        check_numbers(self, "text_weight")
        ATTACKS.check(self.image_attack)
        TEXT_ATTACKS.check(self.text_attack)
        if self.order == "joint" and not has_loss(self.image_attack):
            raise TypeError(
                f"order='joint' maximises its own loss, which {type(self.image_attack).__name__} cannot: "
                "give an image_attack with a loss option, such as PGD"
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
        labels = check_labels(labels, len(pixels), len(prompts), pixels.device)
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

            attempts, zeros = None, []
            if self.order != "joint":
                against = text if self.order == "independent" else attacked_text
                classifier = _Cosine(encode_image, against, scale)
                result = self.image_attack(classifier, pixels, labels, generator=generator)
                zeros.append(result.zero_gradient)
            if self.order == "independent":
                attempts, zero = _attempts(self.image_attack, classifier, pixels, labels, generator)
                zeros.append(zero)
            elif self.order == "joint":
                loss = joint_loss(image, attacked_text[labels], self.text_weight)
                attack = replace(self.image_attack, loss=loss)
                rows = torch.arange(len(pixels), device=pixels.device)  # the loss knows its images by row

                def paired_logits(features: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
                    return _logits(features, attacked_text, scale), labels[rows]

                attempts, zero = _attempts(attack, encode_image, pixels, rows, generator, paired_logits)
                zeros.append(zero)
            with torch.no_grad():
                pair_classifier = _Cosine(encode_image, attacked_text, scale)
                paired = (
                    result.adversarial if attempts is None else _breaking(pair_classifier, attempts, labels)
                )
                adversarial = paired if self.order == "joint" else result.adversarial
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
        return MultimodalResult(adversarial, paired, list(attacked_prompts), *correct, robust, max(zeros))

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


class _Cosine:
    """Pixels to cosine logits against fixed prompt embeddings."""

    def __init__(self, encode_image: ImageEncoder, text: Tensor, scale: Tensor | float):
        self.encode_image, self.text, self.scale = encode_image, text, scale

    def __call__(self, pixels: Tensor) -> Tensor:
        return _logits(self.encode_image(pixels), self.text, self.scale)


def _attempts(
    attack: Attack,
    classifier: ImageEncoder,
    pixels: Tensor,
    labels: Tensor,
    generator: torch.Generator | None,
    read: Reading | None = None,
) -> tuple[list[Tensor], float]:
    """What each restart comes to, see `Attack.to_the_end`, and the largest share of zero first gradients."""
    restarts = getattr(attack, "restarts", 1)
    attack = replace(attack, restarts=1) if hasattr(attack, "restarts") else attack
    found, zeros = [], []
    for _ in range(restarts):
        made, victim = attack.to_the_end(classifier, pixels, labels, generator=generator, read=read)
        found.append(made)
        zeros.append(victim.zero_gradient)
    return found, max(zeros)


def _breaking(classifier: _Cosine, attempts: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Of several attempts, for each image the one with the largest margin."""
    if len(attempts) == 1:
        return attempts[0]
    best = torch.stack([margin(classifier(attempt), labels) for attempt in attempts]).argmax(0)
    return torch.stack(list(attempts))[best, torch.arange(len(labels), device=labels.device)]


def _logits(image: Tensor, text: Tensor, scale: Tensor | float) -> Tensor:
    return scale * F.normalize(image.float(), dim=-1) @ F.normalize(text.float(), dim=-1).T
