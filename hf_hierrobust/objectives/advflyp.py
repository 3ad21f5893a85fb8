"""AdvFLYP: adversarial fine-tuning with the pre-training loss on image-caption pairs (2604.11576)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from ..geometry.precision import SQRT_EPS, full_precision
from ..options import check_choice, check_flag, check_numbers
from .base import OBJECTIVES, Objective, Reference, Targets, View
from .collectives import gather_over_ranks
from .contrastive import POSITIVES, Positives, own_rows, pair_losses, positive_pairs
from .losses import cosine_logits, kl_divergence, squared_distance


@OBJECTIVES.register
@dataclass(kw_only=True)
class AdvFLYP(Objective):
    """Symmetric InfoNCE of attacked images and their captions, held near two anchors; the image tower trains.

    With ``Z = s cos(f(x^_i), g(t_j))`` over the pairs of a batch, both the attack and the training use
    ``1/2 [CE(Z) + CE(Z^T)]``; SigLIP, pre-trained with a sigmoid of each pair, is fine-tuned with it too
    (our reading of the method's name). The full version adds, with P_a, P_0, P_c the softmax over the batch's
    captions of the trained model on the attacked images, of the original on them, and of the trained one on
    the clean images (student first, the opposite of PMG-AFT), and with n() for unit vectors::

        lambda_logit   [KL(P_a || P_0) + KL(P_a || P_c)]
        lambda_feature [mean |n f(x^) - n f0(x^)| + mean |n f(x^) - n f(x)|]

    KL is a mean over images. Gradients flow through the clean images too, as in PMG-AFT (our choice).

    Args:
        lambda_logit, lambda_feature: weights of the two anchors; 0 and 0 is the plain version.
        positives: ``"diagonal"``, the paper's, or ``"class"``, see `MMCoA`.
        gather_negatives: contrast with the pairs of all processes, not only this one's. Accumulated batches
            never contrast with each other.
    """

    name: ClassVar[str] = "advflyp"
    title: ClassVar[str] = (
        "Finetune Like You Pretrain: Boosting Zero-shot Adversarial Robustness in Vision-language Models"
    )
    paper_id: ClassVar[str] = "2604.11576"
    citation: ClassVar[str] = """@inproceedings{xing2026finetune,
  title={Finetune Like You Pretrain: Boosting Zero-shot Adversarial Robustness in Vision-language Models},
  author={Xing, Songlong and Wang, Weijie and Zhao, Zhengyu and Gu, Jindong and Torr, Philip and Sebe, Nicu},
  booktitle={IEEE/CVF Conference on Computer Vision and Pattern Recognition, Findings},
  year={2026}
}"""

    lambda_logit: float = 1.0
    lambda_feature: float = 1.0
    positives: Positives = "diagonal"
    gather_negatives: bool = True

    def __post_init__(self):
        check_numbers(self, "lambda_logit", "lambda_feature")
        check_choice(self, "positives", POSITIVES)
        check_flag(self, "gather_negatives")

    @property
    def needs(self) -> frozenset[str]:
        needs = {"captions"}
        if self.lambda_logit or self.lambda_feature:
            needs |= {"clean", "attacked_reference"}
        return frozenset(needs | {"original_captions"} if self.lambda_logit else needs)

    @property
    def attack_needs(self) -> frozenset[str]:
        return frozenset({"captions"})

    @property
    def uses_labels(self) -> bool:
        return self.positives == "class"

    def inner_loss(self, view: View, targets: Targets) -> Tensor:
        """Half the sum of both directions' pre-training losses, (B,)."""
        positives = positive_pairs(self.positives, targets.labels, self._gather)
        losses = pair_losses(
            view.image_features,
            view.caption_features,
            view.logit_scale,
            view.logit_bias,
            positives,
            view.caption_keys,
            self._gather,
        )
        return sum(losses) / 2

    def loss(self, views: Sequence[View], targets: Targets) -> dict[str, Tensor]:
        """Terms ``contrastive``, ``logit`` and ``feature``; an anchor of weight 0 is absent."""
        terms = {"contrastive": sum(self.inner_loss(view, targets).mean() for view in views)}
        if self.lambda_logit:
            terms["logit"] = self.lambda_logit * sum(
                self._logit_anchor(*both, targets.clean) for both in zip(views, targets.attacked_reference)
            )
        if self.lambda_feature:
            terms["feature"] = self.lambda_feature * sum(
                _distance(view.image_features, original.image_features)
                + _distance(view.image_features, targets.clean.image_features)
                for view, original in zip(views, targets.attacked_reference)
            )
        return terms

    def _logit_anchor(self, view: View, original: Reference, clean: View) -> Tensor:
        # Each side by its own captions: in a composite another member may train the text encoder.
        student, before, unattacked = (
            cosine_logits(side.image_features, self._gather(side.caption_features), side.logit_scale)
            for side in (view, original, clean)
        )
        return (kl_divergence(student, before) + kl_divergence(student, unattacked)).mean()

    @property
    def _gather(self):
        return gather_over_ranks if self.gather_negatives else own_rows


@full_precision
def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean distance of unit vectors; finite gradients where they coincide, as they do before training."""
    return (squared_distance(F.normalize(a, dim=-1), F.normalize(b, dim=-1)) + SQRT_EPS).sqrt().mean()
