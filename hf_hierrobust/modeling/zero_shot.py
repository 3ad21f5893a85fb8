"""Zero-shot classifiers: cached pooled text states, scored by cosine or by hyperbolic distance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .dual_encoder import RobustDualEncoder
from .modes import evaluating
from .pixels import PixelPipeline
from .text_encoder import text_inputs

Score = Literal["cosine", "hyperbolic"]


@torch.no_grad()
def encode_prompts(
    model: RobustDualEncoder,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str] | Sequence[Sequence[str]],
    batch_size: int = 256,
) -> Tensor:
    """Pooled states of the text trunk, before the projection; every module's mode stays as it was.

    Args:
        model, tokenizer: of one checkpoint.
        prompts: N prompts, or N lists of T prompts (one per template).
        batch_size: prompts a forward.

    Returns:
        (N, w), or (N, T, w) for several templates. They stay valid while the trunk is frozen; the
        projection may be trained.

    Raises:
        ValueError: no prompts, unequal numbers of templates, or a prompt longer than the context.
    """
    if len(prompts) == 0:
        raise ValueError("prompts is empty: a zero-shot classifier needs at least one class")
    rows = [[p] if isinstance(p, str) else list(p) for p in prompts]
    if len({len(row) for row in rows}) > 1:
        raise ValueError("every class needs the same number of prompts (one per template)")
    flat = [prompt for row in rows for prompt in row]
    check_prompt_lengths(tokenizer, flat, model.config.text_config.max_position_embeddings)
    parts = []
    with evaluating(model):
        for start in range(0, len(flat), batch_size):
            batch = text_inputs(model, tokenizer, flat[start : start + batch_size])
            parts.append(model.pool_text(**batch).float())
    states = torch.cat(parts)
    return states if len(rows[0]) == 1 else states.view(len(rows), len(rows[0]), -1)


def check_prompt_lengths(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], context: int) -> None:
    """Refuse prompts that the text encoder would cut.

    Raises:
        ValueError: names the longest prompt, if it has more than ``context`` tokens.
    """
    ids = tokenizer(list(prompts), truncation=False, padding=False, verbose=False)["input_ids"]
    longest = max(range(len(ids)), key=lambda i: len(ids[i]))
    if len(ids[longest]) > context:
        raise ValueError(
            f"prompt {prompts[longest]!r} has {len(ids[longest])} tokens but the text encoder's context is "
            f"{context}: shorten the class name or the template"
        )


class ZeroShotClassifier:
    """Callable from pixels in [0, 1] to logits, with the text side computed once.

    Args:
        model: its parameters must not change while the classifier is in use.
        pipeline: the checkpoint's pixel pipeline.
        text_states: (N, w) or (N, T, w) from `encode_prompts`.
        score: ``"cosine"``: the model's own logits, ``exp(logit_scale) cos``, with SigLIP's bias;
            ``"hyperbolic"``: ``-kappa d_r`` (OC-16).
        autocast: run the image tower in this type, for a cheaper gradient search; None is fp32.
    """

    def __init__(
        self,
        model: RobustDualEncoder,
        pipeline: PixelPipeline,
        text_states: Tensor,
        score: Score = "cosine",
        autocast: torch.dtype | None = None,
    ):
        if score not in ("cosine", "hyperbolic"):
            raise ValueError(f"score={score!r} is unknown: choose 'cosine' or 'hyperbolic'")
        self.module, self.pipeline, self.score, self.autocast = model, pipeline, score, autocast
        self.text_states = text_states.to(model.device)
        with torch.no_grad():
            self._offset = model.logit_offset
            features = model.project_text(self.text_states)
            if score == "cosine":
                self._text = model.logit_multiplier * torch.nn.functional.normalize(features, dim=-1)
            else:
                self._text = model.hier_head.lift(model.hier_head.text_tangent(features))

    def with_autocast(self, dtype: torch.dtype) -> ZeroShotClassifier:
        """The same classifier with its image tower under autocast."""
        return ZeroShotClassifier(self.module, self.pipeline, self.text_states, self.score, dtype)

    def features(self, pixels: Tensor) -> Tensor:
        """Projected, un-normalised image embeddings (B, D), fp32."""
        pixel_values = self.pipeline(pixels)
        with torch.autocast(pixels.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            return self.module.encode_image(pixel_values).float()

    def __call__(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in [0, 1] to logits (B, N), fp32."""
        features = self.features(pixels)
        if self.score == "cosine":
            logits = torch.nn.functional.normalize(features, dim=-1) @ self._text.T
            return logits if self._offset is None else logits + self._offset
        head = self.module.hier_head
        return head.logits(head.lift(head.image_tangent(features)), self._text)
