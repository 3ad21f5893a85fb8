"""Plain fine-tuning on clean images: the undefended control with the same data and schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from .base import OBJECTIVES, Objective, View
from .losses import cosine_logits


@OBJECTIVES.register
@dataclass(kw_only=True)
class Clean(Objective):
    """Cross-entropy of CLIP's zero-shot logits on unperturbed images; no attack."""

    name: ClassVar[str] = "clean"
    title: ClassVar[str] = "Clean fine-tuning"
    default_attack: ClassVar[str] = "none"

    def inner_loss(self, view: View, labels: Tensor) -> Tensor:
        logits = cosine_logits(view.image_features, view.text_features, view.logit_scale)
        return F.cross_entropy(logits, labels, reduction="none")

    def loss(self, views: Sequence[View], labels: Tensor) -> dict[str, Tensor]:
        return {"ce": sum(self.inner_loss(view, labels).mean() for view in views)}
