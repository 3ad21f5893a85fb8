"""FARE: unsupervised adversarial fine-tuning of image embeddings (2402.12336)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from ..options import check_choice, check_numbers
from .base import OBJECTIVES, Objective, Targets, View
from .losses import squared_distance


@OBJECTIVES.register
@dataclass(kw_only=True)
class FARE(Objective):
    """Attacked images keep the embedding that the original model gives the clean ones; no text, no labels.

    ``L = mean_b |f(x'_b) - f0(x_b)|^2``, embeddings projected and not normalised, summed over D. The paper
    attacks with 10 steps of 1/255.

    Args:
        clean_weight: w of ``w mean_b |f(x_b) - f0(x_b)|^2 + (1 - w) L``, in [0, 1).
        target: of attacked images in training: ``"original"``, f0(x), or ``"own"``, the trained model's f(x)
            as a constant, as in TRADES. The attack always aims at f0(x). With ``"own"`` only a clean weight
            ties the model to the original.
    """

    name: ClassVar[str] = "fare"
    title: ClassVar[str] = (
        "Robust CLIP: Unsupervised Adversarial Fine-Tuning of Vision Embeddings for Robust Large "
        "Vision-Language Models"
    )
    paper_id: ClassVar[str] = "2402.12336"
    citation: ClassVar[str] = """@inproceedings{schlarmann2024robust,
  title={Robust {CLIP}: Unsupervised Adversarial Fine-Tuning of Vision Embeddings for Robust Large
    Vision-Language Models},
  author={Schlarmann, Christian and Singh, Naman Deep and Croce, Francesco and Hein, Matthias},
  booktitle={International Conference on Machine Learning},
  year={2024}
}"""
    default_attack_steps: ClassVar[int | None] = 10
    default_step_size: ClassVar[float | None] = 1 / 255

    clean_weight: float = 0.0
    target: Literal["original", "own"] = "original"

    def __post_init__(self):
        check_choice(self, "target", ("original", "own"))
        check_numbers(self, "clean_weight")
        if self.clean_weight >= 1:
            raise ValueError(f"clean_weight={self.clean_weight!r} must be below 1: at 1 no attack counts")

    @property
    def needs(self) -> frozenset[str]:
        clean = self.clean_weight > 0 or self.target == "own"
        return frozenset({"reference"} | ({"clean"} if clean else set()))

    @property
    def uses_labels(self) -> bool:
        return False

    def inner_loss(self, view: View, targets: Targets) -> Tensor:
        return squared_distance(view.image_features, targets.reference.image_features)

    def loss(self, views: Sequence[View], targets: Targets) -> dict[str, Tensor]:
        original = targets.reference.image_features
        target = original if self.target == "original" else targets.clean.image_features.detach()
        attacked = sum(squared_distance(view.image_features, target).mean() for view in views)
        terms = {"embedding": (1 - self.clean_weight) * attacked}
        if self.clean_weight:
            clean = squared_distance(targets.clean.image_features, original).mean()
            terms["clean_embedding"] = self.clean_weight * clean
        return terms
