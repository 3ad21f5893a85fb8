"""TGA-ZSR and Comp-TGA: text-guided attention maps that attacks may not move (2410.21802, 2603.18598)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from ..hierarchy import Forest
from ..naming import check_template
from ..options import check_choice, check_flag, check_numbers, refuse_idle
from .base import OBJECTIVES, Reference, Targets, TextNodes, View
from .losses import attention_maps
from .tecoa import TeCoA


@OBJECTIVES.register
@dataclass(kw_only=True)
class TGAZSR(TeCoA):
    """TeCoA, and the attention map of the true class stays what the original model's is on the clean image.

    ``CE + alpha mean_b |A(x') - A_0(x)| + beta mean_b |A(x) - A_0(x)|`` with the maps A of
    `losses.attention_maps` towards the image's own class prompt. The attack maximises the cross-entropy
    alone. Needs a vision transformer: a map is made of patch tokens.

    Args:
        alpha, beta: weights for attacked and for clean images; they belong to ``norm="l2"`` at 224 x 224,
            where distances are of the order of 10.
        norm: ``"l2"`` distance of a pair of maps, ``"l1"`` their mean absolute difference (as in the released
            code; the sum over 50,176 pixels would drown the cross-entropy), ``"cosine"`` 1 - their cosine.
        resolution: edge of the maps in pixels. An l2 distance grows in proportion to it.
        official_quirks: normalise patch tokens as the released code does, over the tokens in place of the
            embedding (OC-19). The code also counts the class token into that norm, which is not done here.
    """

    name: ClassVar[str] = "tga_zsr"
    title: ClassVar[str] = (
        "Text-Guided Attention is All You Need for Zero-Shot Robustness in Vision-Language Models"
    )
    paper_id: ClassVar[str] = "2410.21802"
    citation: ClassVar[str] = """@inproceedings{yu2024text,
  title={Text-Guided Attention is All You Need for Zero-Shot Robustness in Vision-Language Models},
  author={Yu, Lu and Zhang, Haiyang and Xu, Changsheng},
  booktitle={Advances in Neural Information Processing Systems},
  year={2024}
}"""

    alpha: float = 0.08
    beta: float = 0.05
    norm: Literal["l2", "l1", "cosine"] = "l2"
    resolution: int = 224
    official_quirks: bool = False

    def __post_init__(self):
        check_numbers(self, "alpha", "beta")
        check_flag(self, "official_quirks")
        check_choice(self, "norm", ("l2", "l1", "cosine"))
        if isinstance(self.resolution, bool) or not isinstance(self.resolution, int) or self.resolution < 1:
            raise ValueError(f"resolution={self.resolution!r} must be a positive number of pixels")
        self._refuse_idle("norm", "resolution", "official_quirks")

    def _refuse_idle(self, *names: str) -> None:
        if not (self.alpha or self.beta):
            refuse_idle(self, dict.fromkeys(names, "with alpha=0 and beta=0, which compare no maps"))

    @property
    def needs(self) -> frozenset[str]:
        maps = {"patches", "reference"} if self.alpha or self.beta else set()
        return super().needs | maps | ({"clean"} if self.beta else set())

    def loss(self, views: Sequence[View], targets: Targets) -> dict[str, Tensor]:
        terms, labels = super().loss(views, targets), targets.labels
        if self.alpha or self.beta:
            original = self.maps(targets.reference, labels)
        if self.alpha:
            attacked = sum(self._distance(self.maps(view, labels), original) for view in views)
            terms["attacked_attention"] = self.alpha * attacked
        if self.beta:
            clean = self._distance(self.maps(targets.clean, labels), original)
            terms["clean_attention"] = self.beta * clean
        return terms

    def maps(self, view: View | Reference, labels: Tensor) -> Tensor:
        """Attention maps (B, resolution^2) of the images, each towards its own class prompt, in [0, 1].

        Raises:
            ValueError: the view holds no patch tokens, or those of images that are not square.
        """
        return self._maps_towards(view, labels)

    def _maps_towards(self, view: View | Reference, rows: Tensor) -> Tensor:
        if view.patch_features is None:
            raise ValueError(
                f"objective {self.name!r} needs patch tokens, which this image tower did not return: use a "
                "vision transformer such as openai/clip-vit-base-patch32"
            )
        texts = view.text_features[rows]
        return attention_maps(view.patch_features, texts, self.resolution, token_norm=self.official_quirks)

    def _distance(self, maps: Tensor, original: Tensor) -> Tensor:
        if self.norm == "l1":
            return F.l1_loss(maps, original)
        if self.norm == "cosine":
            return (1 - F.cosine_similarity(maps, original, dim=1)).mean()
        return (maps - original).norm(dim=1).mean()


@OBJECTIVES.register
@dataclass(kw_only=True)
class CompTGA(TGAZSR):
    """TGA-ZSR with complementary maps: ``A_class (1 - A_nonclass)``, the second towards a negated prompt.

    Args:
        alpha, beta: as in `TGAZSR`, with this paper's values.
        negative_template: the negated prompt; ``{}`` is the class name.
    """

    name: ClassVar[str] = "comp_tga"
    title: ClassVar[str] = "Complementary Text-Guided Attention for Zero-Shot Adversarial Robustness"
    paper_id: ClassVar[str] = "2603.18598"
    citation: ClassVar[str] = """@article{yu2026complementary,
  title={Complementary Text-Guided Attention for Zero-Shot Adversarial Robustness},
  author={Yu, Lu and Zhang, Haiyang and Xu, Changsheng},
  journal={arXiv preprint arXiv:2603.18598},
  year={2026}
}"""

    alpha: float = 0.10
    beta: float = 0.07
    negative_template: str = "This is not a photo of a {}"

    def __post_init__(self):
        super().__post_init__()
        check_template("negative_template", self.negative_template)
        self._refuse_idle("negative_template")

    def setup(self, class_names: Sequence[str], forest: Forest | None = None) -> None:
        """Add one negated prompt per class behind the class prompts."""
        super().setup(class_names, forest)
        negated = tuple(self.negative_template.replace("{}", name) for name in class_names)
        self.nodes = TextNodes(tuple(class_names), prompts=negated)

    def maps(self, view: View | Reference, labels: Tensor) -> Tensor:
        negated = self._maps_towards(view, self.num_classes + labels)
        return self._maps_towards(view, labels) * (1 - negated)
