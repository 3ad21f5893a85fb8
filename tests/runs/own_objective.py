"""An objective of one's own, as a user writes it: one file outside the package."""

from dataclasses import dataclass
from typing import ClassVar

from hf_hierrobust import OBJECTIVES, Objective


@OBJECTIVES.register
@dataclass(kw_only=True)
class Hinge(Objective):
    """Multi-class hinge of CLIP's logits, against the attack as in training."""

    name: ClassVar[str] = "own_hinge"
    title: ClassVar[str] = "A hinge"

    width: float = 1.0

    def inner_loss(self, view, targets):
        logits = self.leaf_logits(view)
        own = logits.gather(1, targets.labels[:, None])
        return (logits - own + self.width).clamp(min=0).sum(1) - self.width

    def loss(self, views, targets):
        return {"hinge": sum(self.inner_loss(view, targets).mean() for view in views)}
