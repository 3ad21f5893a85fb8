"""MMCoA: multimodal contrastive adversarial training of both encoders (2404.19287)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from ..options import check_choice, check_flag, check_numbers
from .base import OBJECTIVES, Objective, Targets, View
from .collectives import gather_over_ranks
from .contrastive import POSITIVES, Positives, own_rows, pair_losses, positive_pairs


@OBJECTIVES.register
@dataclass(kw_only=True)
class MMCoA(Objective):
    """Attacked images against clean captions and clean images against attacked captions; everything trains.

    With ``Z(a, b) = s cos(a_i, b_j)`` over the pairs of a batch and CE over its rows::

        L = lambda_image [CE Z(f(x^), g(t)) + CE Z(g(t), f(x^))]
          + lambda_text  [CE Z(f(x), g(t^)) + CE Z(g(t^), f(x))]

    The image attack maximises cross-entropy over the K clean class prompts, in the paper's 10 steps. The text
    attack replaces one word of each caption, independently of the image. A data set without captions is
    trained on its class prompts, as the paper does. SigLIP's pairs are scored by its own sigmoid loss.

    Args:
        lambda_image, lambda_text: weights of the two halves. ``lambda_image=0`` is the published text-only
            mode, which needs no image attack; ``lambda_text=0`` needs no text attack.
        positives: which pairs of a batch match: ``"class"``, those of one label, with a target uniform over
            them (our choice); ``"diagonal"``, only the pair itself, the released code's. The two differ where
            a class has several captions; on class prompts their sum over a batch is the same (of the softmax;
            SigLIP's loss takes equal captions as matches under both).
        gather_negatives: contrast with the pairs of all processes, not only this one's. Accumulated batches
            never contrast with each other.
    """

    name: ClassVar[str] = "mmcoa"
    title: ClassVar[str] = (
        "Revisiting the Adversarial Robustness of Vision Language Models: a Multimodal Perspective"
    )
    paper_id: ClassVar[str] = "2404.19287"
    citation: ClassVar[str] = """@article{zhou2024revisiting,
  title={Revisiting the Adversarial Robustness of Vision Language Models: a Multimodal Perspective},
  author={Zhou, Wanqi and Bai, Shuanghao and Mandic, Danilo P. and Zhao, Qibin and Chen, Badong},
  journal={arXiv preprint arXiv:2404.19287},
  year={2024}
}"""
    trains: ClassVar[tuple[str, ...]] = ("vision", "text", "text_projection", "logit_scale")
    default_attack_steps: ClassVar[int | None] = 10
    default_text_attack: ClassVar[str] = "bert"

    lambda_image: float = 0.5
    lambda_text: float = 0.5
    positives: Positives = "class"
    gather_negatives: bool = True

    def __post_init__(self):
        check_numbers(self, "lambda_image", "lambda_text")
        if self.lambda_image == self.lambda_text == 0:
            raise ValueError("lambda_image=0 and lambda_text=0 leave no loss: set one of them above 0")
        check_choice(self, "positives", POSITIVES)
        check_flag(self, "gather_negatives")
        if not self.lambda_image:
            self.default_attack = "none"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"captions", "attacked_captions", "clean"} if self.lambda_text else {"captions"})

    @property
    def trains_on_attack(self) -> bool:
        return self.lambda_image > 0

    def inner_loss(self, view: View, targets: Targets) -> Tensor:
        """Cross-entropy (B,) over the clean class prompts."""
        return F.cross_entropy(self.leaf_logits(view), targets.labels, reduction="none")

    def loss(self, views: Sequence[View], targets: Targets) -> dict[str, Tensor]:
        """Terms ``attacked_images`` and ``attacked_texts``; a half of weight 0 is absent."""
        gather = gather_over_ranks if self.gather_negatives else own_rows
        positives = positive_pairs(self.positives, targets.labels, gather)

        def contrast(view: View, texts: Tensor, keys: Tensor) -> Tensor:
            to_texts, to_images = pair_losses(
                view.image_features, texts, view.logit_scale, view.logit_bias, positives, keys, gather
            )
            return to_texts.mean() + to_images.mean()

        terms = {}
        if self.lambda_image:
            terms["attacked_images"] = self.lambda_image * sum(
                contrast(view, view.caption_features, view.caption_keys) for view in views
            )
        if self.lambda_text:
            clean = targets.clean
            terms["attacked_texts"] = self.lambda_text * contrast(
                clean, clean.attacked_caption_features, clean.attacked_caption_keys
            )
        return terms
