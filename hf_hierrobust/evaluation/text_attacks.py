"""Robust accuracy when the class prompts are attacked too."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..attacks import Cost, EmbeddingPGD, TextAttack
from ..classifiers import ZeroShotClassifier, merge_twins
from ..data import ClassSet
from ..modeling import PixelPipeline, RobustDualEncoder, TextEncoder, encode_prompts
from ..modeling.dual_encoder import mean_embedding
from .verdicts import Outcome


class AttackedText(NamedTuple):
    """What a label-free attack made of all class prompts; it sees no image, so one serves a whole data set.

    Attributes:
        features: (K, D) projected embeddings of the classes, the mean over templates, not normalised.
        identity: what they depend on, for a state directory.
    """

    features: Tensor
    identity: object


def attacked_text(
    model: RobustDualEncoder, tokenizer, class_set: ClassSet, attack: TextAttack | EmbeddingPGD, seed: int = 0
) -> AttackedText:
    """Attack the prompts of every class: by words, as MMCoA's evaluation (2404.19287), or by embeddings.

    Args:
        seed: of an attack that draws.
    """
    prompts = [text for row in class_set.prompts(class_set.class_names) for text in row]
    generator = torch.Generator(model.device).manual_seed(seed)
    found = attack(prompts, TextEncoder(model, tokenizer), generator=generator)
    count = len(class_set.templates)
    if isinstance(attack, EmbeddingPGD):
        features = found.features.unflatten(0, (-1, count))
        return AttackedText(mean_embedding(features) if count > 1 else features[:, 0], ["embedding", seed])
    texts = [found.texts[start : start + count] for start in range(0, len(prompts), count)]
    # An attack may well have made two classes' prompts one.
    states = encode_prompts(model, tokenizer, texts, distinct=False)
    with torch.no_grad():
        return AttackedText(model.project_text(states), texts)


def prompt_classifier(
    model: RobustDualEncoder, pipeline: PixelPipeline, tokenizer, class_set: ClassSet, text: AttackedText
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """CLIP's cosine classifier with the attacked prompts, and the place of each class among its logits.

    Classes with the same prompt before the attack count as one, as without it.
    """
    prompts = class_set.prompts(class_set.class_names)
    clean = ZeroShotClassifier(model, pipeline, encode_prompts(model, tokenizer, prompts), prompts=prompts)
    with warnings.catch_warnings():  # said of the classifier with clean prompts already
        warnings.simplefilter("ignore", UserWarning)
        return merge_twins(clean.with_text(text.features), prompts, torch.arange(len(class_set)))


def text_only(clean: Tensor, attacked: Outcome, seconds: float) -> Outcome:
    """Verdicts when only the prompts are attacked: right with both the clean and the attacked prompts.

    Args:
        attacked: under the attacked prompts.
        seconds: that the attack on the prompts took.
    """
    robust = clean & attacked.clean
    after = (float(robust.float().mean()),)
    return Outcome(clean, robust, after, (), (), Cost(1.0, 0.0), seconds)  # one forward judges each image


def both(image: Outcome, pair: Outcome, robust: Tensor) -> Outcome:
    """What two attacks come to together.

    Args:
        image: pixels attacked against the clean prompts.
        pair: pixels attacked for the attacked prompts.
        robust: (N,) bool, what stands under both.
    """
    return pair._replace(
        clean=image.clean,
        robust=robust,
        after=(*image.after, float(robust.float().mean())),
        attacked=(*image.attacked, *pair.attacked),
        zero_gradient=(*image.zero_gradient, *pair.zero_gradient),
        cost=Cost(*(a + b for a, b in zip(image.cost, pair.cost))),
        seconds=image.seconds + pair.seconds,
        notes=None,
    )
