"""Plain adversarial fine-tuning: the image tower under a linear classifier that is thrown away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ..hierarchy import Forest
from .base import OBJECTIVES, View
from .clean import Clean
from .losses import cosine_logits


@OBJECTIVES.register
@dataclass(kw_only=True)
class Plain(Clean):
    """Adversarial training with a linear classifier of the K classes on image embeddings, and no text.

    The baseline that TeCoA improves on: nothing keeps the embeddings aligned with the prompts, so zero-shot
    accuracy is lost. The classifier is fixed, its rows random and orthonormal: a fixed classifier trains a
    network as well as a learned one (1801.04540), and none is left over to save. Logits are cosines times
    CLIP's own multiplier. With more classes than dimensions the rows are the unit rows of a matrix with
    orthonormal columns.

    Args:
        seed: draws the classifier.
    """

    name: ClassVar[str] = "plain"
    title: ClassVar[str] = "Towards Deep Learning Models Resistant to Adversarial Attacks"
    paper_id: ClassVar[str] = "1706.06083"
    default_attack: ClassVar[str] = "pgd"
    citation: ClassVar[str] = """@inproceedings{madry2018towards,
  title={Towards Deep Learning Models Resistant to Adversarial Attacks},
  author={Madry, Aleksander and Makelov, Aleksandar and Schmidt, Ludwig and Tsipras, Dimitris and
    Vladu, Adrian},
  booktitle={International Conference on Learning Representations},
  year={2018}
}"""

    seed: int = 0

    _weight: Tensor | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self):
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed={self.seed!r} must be an integer, at least 0")

    def setup(self, class_names: Sequence[str], forest: Forest | None = None) -> None:
        super().setup(class_names, forest)
        self._weight = None  # of other classes

    @property
    def needs(self) -> frozenset[str]:
        return frozenset()

    def leaf_logits(self, view: View) -> Tensor:
        """Logits (B, K) of the fixed classifier."""
        return cosine_logits(view.image_features, self.classifier(view.image_features), view.logit_scale)

    def classifier(self, features: Tensor) -> Tensor:
        """The fixed rows (K, D) on the device of these embeddings (B, D); drawn once."""
        if self._weight is None:
            generator = torch.Generator().manual_seed(self.seed)
            weight = torch.empty(self.num_classes, features.shape[-1], dtype=torch.float32)
            self._weight = torch.nn.init.orthogonal_(weight, generator=generator)
        self._weight = self._weight.to(features)
        return self._weight
