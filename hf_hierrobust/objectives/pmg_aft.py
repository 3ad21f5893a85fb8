"""PMG-AFT: adversarial fine-tuning guided by the pre-trained model (2401.04350)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..options import check_flag, check_numbers
from .base import OBJECTIVES, Reference, Targets, View
from .losses import cosine_logits, kl_divergence
from .tecoa import TeCoA


@OBJECTIVES.register
@dataclass(kw_only=True)
class PMGAFT(TeCoA):
    """TeCoA with two anchors against overfitting: ``CE(P_a, y) + alpha KL(P_0 | P_a) + beta KL(P_c | P_a)``.

    P_a is the trained model on attacked images, P_0 the original on the same attacked images, P_c the trained
    model on clean ones, through which gradients flow too. The attack maximises the cross-entropy alone.

    Args:
        alpha, beta: weights of the two anchors; at 0 the forward passes of an anchor are spared.
        official_quirks: what the released code computes: bare cosines in place of logits (s = 1), in the
            attack too, and divergences summed over the batch beside a mean cross-entropy. Its attacks are
            weaker than those at CLIP's s. The code also normalises pixels by ImageNet's mean and deviation;
            that is the image processor's business, not the loss's.
    """

    name: ClassVar[str] = "pmg_aft"
    title: ClassVar[str] = "Pre-trained Model Guided Fine-Tuning for Zero-Shot Adversarial Robustness"
    paper_id: ClassVar[str] = "2401.04350"
    citation: ClassVar[str] = """@inproceedings{wang2024pretrained,
  title={Pre-trained Model Guided Fine-Tuning for Zero-Shot Adversarial Robustness},
  author={Wang, Sibo and Zhang, Jie and Yuan, Zheng and Shan, Shiguang},
  booktitle={IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year={2024}
}"""

    alpha: float = 1.0
    beta: float = 1.0
    official_quirks: bool = False

    def __post_init__(self):
        check_numbers(self, "alpha", "beta")
        check_flag(self, "official_quirks")

    @property
    def needs(self) -> frozenset[str]:
        anchors = {"attacked_reference": self.alpha, "clean": self.beta}
        return super().needs | {need for need, weight in anchors.items() if weight}

    def leaf_logits(self, view: View | Reference) -> Tensor:
        if not self.official_quirks:
            return super().leaf_logits(view)
        return cosine_logits(view.image_features, view.text_features[: self.num_classes], 1.0)

    def loss(self, views: Sequence[View], targets: Targets) -> dict[str, Tensor]:
        terms = super().loss(views, targets)
        attacked = [self.leaf_logits(view) for view in views]
        if self.alpha:
            original = [self.leaf_logits(reference) for reference in targets.attacked_reference]
            terms["kl_original"] = self.alpha * self._divergence(original, attacked)
        if self.beta:
            clean = [self.leaf_logits(targets.clean)] * len(views)
            terms["kl_clean"] = self.beta * self._divergence(clean, attacked)
        return terms

    def _divergence(self, targets: Sequence[Tensor], attacked: Sequence[Tensor]) -> Tensor:
        values = [kl_divergence(p, q) for p, q in zip(targets, attacked)]
        return sum(value.sum() if self.official_quirks else value.mean() for value in values)
