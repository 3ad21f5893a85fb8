"""Zero-shot classifiers: cached pooled text states, scored by cosine or by hyperbolic distance."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ..geometry import Polar
from ..modeling.dual_encoder import RobustDualEncoder
from ..modeling.pixels import PixelPipeline
from ..modeling.text_checks import check_distinct
from .shared import Parts

Score = Literal["cosine", "hyperbolic"]


class ZeroShotClassifier:
    """Callable from pixels in [0, 1] to logits, with the text side computed once.

    Args:
        model: its parameters must not change while the classifier is in use. Weights in half precision are
            used as they are, with a warning: verdicts then carry their rounding.
        pipeline: the checkpoint's pixel pipeline.
        text_states: (N, w) or (N, T, w) from `encode_prompts`.
        score: ``"cosine"``: the model's own logits, ``exp(logit_scale) cos``, with SigLIP's bias;
            ``"hyperbolic"``: ``-kappa d_r`` (OC-16).
        autocast: run the image tower in this type, for a cheaper gradient search; None is fp32.
        prompts: N prompts, or N lists of T, that the states were encoded from. Classes with equal prompts are
            twins: they may have equal states, and tie on every image.
        levels: (N,) level of each class in a tree, for its tangent scale; None takes all for leaves.

    Raises:
        TokenizerError: two classes have equal text states and are no twins: no image could tell them apart.
        ValueError: an unknown score, or another number of prompts than of states.
    """

    def __init__(
        self,
        model: RobustDualEncoder,
        pipeline: PixelPipeline,
        text_states: Tensor,
        score: Score = "cosine",
        autocast: torch.dtype | None = None,
        prompts: Sequence[str] | Sequence[Sequence[str]] | None = None,
        levels: Tensor | None = None,
    ):
        if score not in ("cosine", "hyperbolic"):
            raise ValueError(f"score={score!r} is unknown: choose 'cosine' or 'hyperbolic'")
        if prompts is not None and len(prompts) != len(text_states):
            raise ValueError(f"there are {len(prompts)} prompts but {len(text_states)} text states")
        check_distinct(
            [f"class {k}" for k in range(len(text_states))] if prompts is None else prompts, text_states
        )
        if model.dtype in (torch.float16, torch.bfloat16):
            warnings.warn(
                f"the model has {model.dtype} weights, whose rounding is in all verdicts: load it in float32",
                stacklevel=2,
            )
        self.module, self.pipeline, self.score, self.autocast = model, pipeline, score, autocast
        self.text_states, self._levels = text_states.to(model.device), levels
        with torch.no_grad():
            self._offset = model.logit_offset
            self._text = self._placed(model.project_text(self.text_states))

    @property
    def space(self) -> str:
        """Threat space of the pixels that the pipeline takes."""
        return self.pipeline.space

    @property
    def points(self) -> Polar:
        """The classes' texts in the ball, of a hyperbolic score: directions (N, D) and radii (N,)."""
        if self.score != "hyperbolic":
            raise AttributeError(f"a classifier with score={self.score!r} has no points in the ball")
        return self._text

    def with_autocast(self, dtype: torch.dtype | None) -> ZeroShotClassifier:
        """The same classifier with its image tower under autocast."""
        other = copy.copy(self)
        other.autocast = dtype
        return other

    @torch.no_grad()
    def with_text(self, features: Tensor) -> ZeroShotClassifier:
        """The same classifier with other text embeddings (N, D), not normalised, such as attacked ones."""
        other = copy.copy(self)
        other._text = other._placed(features.to(self.module.device))
        return other

    def _placed(self, features: Tensor):
        """Text embeddings as `scores` compares images with them."""
        if self.score == "cosine":
            return self.module.logit_multiplier * torch.nn.functional.normalize(features, dim=-1)
        return self.module.hier_head.lift(self.module.hier_head.text_tangent(features, self._levels))

    def features(self, pixels: Tensor) -> Tensor:
        """Projected, un-normalised image embeddings (B, D), fp32."""
        pixel_values = self.pipeline(pixels)
        with torch.autocast(pixels.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            return self.module.encode_image(pixel_values).float()

    def __call__(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in [0, 1] to logits (B, N), fp32."""
        return self.scores(self.features(pixels))

    def parts(self) -> Parts:
        """See `parts_of`: classifiers of one model and pipeline share their embeddings."""
        key = ("embeddings", id(self.module), id(self.pipeline), self.autocast)
        return Parts(key, self.features, self.scores)

    def scores(self, features: Tensor) -> Tensor:
        """Image embeddings (B, D) of `features` to logits (B, N), fp32."""
        if self.score == "cosine":
            logits = torch.nn.functional.normalize(features, dim=-1) @ self._text.T
            return logits if self._offset is None else logits + self._offset
        head = self.module.hier_head
        return head.logits(head.lift(head.image_tangent(features)), self._text)
