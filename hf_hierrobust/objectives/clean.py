"""Plain fine-tuning on clean images: the undefended control with the same data and schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from .base import OBJECTIVES, Objective, Targets, View


@OBJECTIVES.register
@dataclass(kw_only=True)
class Clean(Objective):
    """Cross-entropy of CLIP's zero-shot logits on unperturbed images; no attack."""

    name: ClassVar[str] = "clean"
    title: ClassVar[str] = "Clean fine-tuning"
    default_attack: ClassVar[str] = "none"

    def inner_loss(self, view: View, targets: Targets) -> Tensor:
        return F.cross_entropy(self.leaf_logits(view), targets.labels, reduction="none")

    def loss(self, views: Sequence[View], targets: Targets) -> dict[str, Tensor]:
        return {"ce": sum(self.inner_loss(view, targets).mean() for view in views)}
