"""Robust accuracy when the class prompts are attacked too."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..attacks import Cost, TextAttack
from ..classifiers import ZeroShotClassifier
from ..data import ClassSet
from ..modeling import PixelPipeline, RobustDualEncoder, TextEncoder, encode_prompts
from .verdicts import Outcome


def attacked_prompts(
    model: RobustDualEncoder, tokenizer, class_set: ClassSet, templates: Sequence[str], attack: TextAttack
) -> list[list[str]]:
    """The prompts of every class after a label-free attack on each, (K lists of T prompts).

    It sees no image: one attack serves a whole data set, as in MMCoA's evaluation (2404.19287).
    """
    prompts = [template.replace("{}", name) for name in class_set.class_names for template in templates]
    found = attack(prompts, TextEncoder(model, tokenizer)).texts
    count = len(templates)
    return [found[start : start + count] for start in range(0, len(found), count)]


def prompt_classifier(
    model: RobustDualEncoder, pipeline: PixelPipeline, tokenizer, prompts: Sequence[Sequence[str]]
) -> ZeroShotClassifier:
    """CLIP's cosine classifier with these prompts, K lists of T."""
    # An attack may well have made two classes' prompts one.
    states = encode_prompts(model, tokenizer, prompts, distinct=False)
    return ZeroShotClassifier(model, pipeline, states, prompts=prompts)


def text_only(clean: torch.Tensor, attacked: Outcome, seconds: float) -> Outcome:
    """Verdicts when only the prompts are attacked: right with both the clean and the attacked prompts.

    Args:
        seconds: that the attack on the prompts took.
    """
    robust = clean & attacked.clean
    after = (float(robust.float().mean()),)
    return Outcome(clean, robust, after, (), (), Cost(1.0, 0.0), seconds)  # one forward judges each image


def both(image: Outcome, attacked: Outcome) -> Outcome:
    """Verdicts when the attacker may alter pixels, prompts or both.

    Args:
        image: pixels attacked against the clean prompts.
        attacked: pixels attacked against the attacked prompts ("text first").
    """
    robust = image.robust & attacked.robust
    return attacked._replace(
        clean=image.clean,
        robust=robust,
        after=(*image.after, float(robust.float().mean())),
        attacked=(*image.attacked, *attacked.attacked),
        zero_gradient=(*image.zero_gradient, *attacked.zero_gradient),
        cost=Cost(*(a + b for a, b in zip(image.cost, attacked.cost))),
        seconds=image.seconds + attacked.seconds,
    )
