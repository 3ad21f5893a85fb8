"""AGFT: alignment-guided fine-tuning towards the original model's soft predictions (2603.29410)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from ..options import check_numbers
from .base import OBJECTIVES, Objective, Targets, View


@OBJECTIVES.register
@dataclass(kw_only=True)
class AGFT(Objective):
    """Cross-entropy on attacked images to what the original model says of the clean ones; no labels.

    With CLIP's multiplier s, the target is ``softmax(gamma scale s cos(f0(x), T))`` and the trained model
    predicts ``softmax(scale s cos(f(x'), T))``, in the attack as in training. At the optimum its cosine gaps
    are ``gamma`` times the original's. At test the multiplier is s again.

    The defaults are the paper's: 180 for the trained model and 72 for the original, where s = 100.
    ``gamma=1, scale=1`` are the argument defaults of the released code: adversarial self-distillation.

    Args:
        gamma: calibration; below 1 it smooths the target, far above 1 the target is the original's top class.
        scale: multiplier of training logits in units of the model's own s.
    """

    name: ClassVar[str] = "agft"
    title: ClassVar[str] = (
        "AGFT: Alignment-Guided Fine-Tuning for Zero-Shot Adversarial Robustness of Vision-Language Models"
    )
    paper_id: ClassVar[str] = "2603.29410"
    citation: ClassVar[str] = """@inproceedings{cui2026agft,
  title={{AGFT}: Alignment-Guided Fine-Tuning for Zero-Shot Adversarial Robustness of Vision-Language Models},
  author={Cui, Yubo and Guan, Xianchao and Xiong, Zijun and Zhang, Zheng},
  booktitle={IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year={2026}
}"""

    gamma: float = 0.4
    scale: float = 1.8

    def __post_init__(self):
        check_numbers(self, "gamma", "scale", positive=True)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"reference", "text_nodes"})

    @property
    def uses_labels(self) -> bool:
        return False

    def inner_loss(self, view: View, targets: Targets) -> Tensor:
        original = (self.gamma * self.scale * self.leaf_logits(targets.reference)).softmax(-1)
        return F.cross_entropy(self.scale * self.leaf_logits(view), original, reduction="none")

    def loss(self, views: Sequence[View], targets: Targets) -> dict[str, Tensor]:
        return {"alignment": sum(self.inner_loss(view, targets).mean() for view in views)}
