"""Hierarchical MMCoA: class-tree alignment and multimodal contrastive training. A method of this package."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from ..options import check_choice
from .base import OBJECTIVES
from .composite import Composed, build_part


@OBJECTIVES.register
@dataclass(kw_only=True)
class HierMMCoA(Composed):
    """Alignment at every level of a class tree plus MMCoA, on one shared image attack; both encoders train.

    Neither paper has this recipe: it joins HierRobust (2604.18867) with MMCoA (2404.19287)::

        L       = alignment_weight L_tree(x^, t) + mmcoa_weight L_MMCoA(x^, x, t, t^)
        L_inner = alignment_weight L_tree's inner loss + mmcoa_weight CE over the class prompts
                  (without the second where MMCoA's lambda_image is 0)

    L_tree is all of `HierRobust`'s eq. 14 or the loss of `HierAGFT`. The text tower trains, so the prompts of
    classes and superclasses pass through it in every step, with gradients: MMCoA defends captions whose words
    were changed, the tree keeps the tower's prompts in their order. Equals a `Composite` of the two.

    Args:
        alignment: ``"hier_robust"`` or ``"hier_agft"``.
        alignment_args, mmcoa_args: options of the two members.
        alignment_weight, mmcoa_weight: their weights.
    """

    name: ClassVar[str] = "hier_mmcoa"
    title: ClassVar[str] = "HierRobust's class levels with MMCoA's multimodal training (hf_hierrobust)"
    trains: ClassVar[tuple[str, ...]] = ("vision", "text_projection", "hier_head", "text", "logit_scale")
    default_attack: ClassVar[str] = "universal"
    default_text_attack: ClassVar[str] = "bert"

    alignment: Literal["hier_robust", "hier_agft"] = "hier_robust"
    alignment_args: dict = field(default_factory=dict)
    mmcoa_args: dict = field(default_factory=dict)
    alignment_weight: float = 1.0
    mmcoa_weight: float = 1.0

    def __post_init__(self):
        check_choice(self, "alignment", ("hier_robust", "hier_agft"))
        parts = {
            self.alignment: build_part("alignment_args", self.alignment, self.alignment_args),
            "mmcoa": build_part("mmcoa_args", "mmcoa", self.mmcoa_args),
        }
        self.compose(parts, {self.alignment: self.alignment_weight, "mmcoa": self.mmcoa_weight})

    def options(self) -> dict:
        """As given, with all options of both members."""
        tree, mmcoa = (part.options() for part in self.parts.values())
        return super().options() | {"alignment_args": tree, "mmcoa_args": mmcoa}
