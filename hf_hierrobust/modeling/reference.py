"""The frozen original model that many objectives compare with, in one place."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from ..adapters.fingerprints import fingerprints
from ..adapters.lora import adapter_layers, adapters_off
from ..adapters.visual_prompts import remove_visual_prompt, visual_prompt_off
from ..modes import evaluating
from .dual_encoder import RobustDualEncoder
from .prompts import encode_prompts


class ReferenceChangedError(RuntimeError):
    """The reference model's weights are not those it started with."""


class ReferenceModel:
    """The model as it was before training: image features of any batch, text features of fixed prompts.

    Under full fine-tuning it owns a copy of vision tower and projections. Where the vision tower's base
    weights are frozen (adapters, visual prompt, text-only objectives) it is the trained model itself with
    adapters and prompt switched off, at no memory. Make it after `add_lora` and `set_trainable`, before
    anything trains or is loaded from a checkpoint.

    Args:
        model: the model to be trained.
        text_states: (N, w) or (N, T, w) from `encode_prompts` of the untrained model; None if only image
            features are wanted.
        shared: True uses the trained model, False a copy; None decides by what is frozen.
        captions: keep the original's text side as well, for `caption_features`; a copy, where it trains.

    Attributes:
        text_features: (N, D) projected, not normalised, fp32; None without ``text_states``.
        logit_scale: the original's multiplier, 0-dim.
        shared: see above.
    """

    def __init__(
        self,
        model: RobustDualEncoder,
        text_states: Tensor | None = None,
        shared: bool | None = None,
        captions: bool = False,
    ):
        text_trains = captions and any(p.requires_grad for p in _base_tensors(model, _TEXT).values())
        trains = text_trains or any(p.requires_grad for p in _base_tensors(model).values())
        self.shared = not trains if shared is None else shared
        with torch.no_grad(), _original(model):
            self.logit_scale = model.logit_multiplier.clone()
            self.text_features = None
            if text_states is not None:
                self.text_features = model.project_text(text_states.to(model.device)).float()
        self.model = model if self.shared else _copy_of(model, with_text=text_trains)
        self._captions = model if captions and not text_trains else self.model if captions else None
        self._before = self._fingerprints()

    @torch.no_grad()
    def __call__(self, pixel_values: Tensor, patches: bool = False) -> tuple[Tensor, Tensor | None]:
        """Image features (B, D) and, where asked for, patch features (B, P, D); fp32, not normalised.

        Args:
            pixel_values: (B, 3, h, w), normalised.
        """
        with _original(self.model):
            if not patches:
                return self.model.encode_image(pixel_values).float(), None
            features, tokens = self.model.encode_patches(pixel_values)
            return features.float(), tokens.float()

    @torch.no_grad()
    def caption_features(
        self, tokenizer: PreTrainedTokenizerBase, captions: Sequence[str], states: Tensor | None = None
    ) -> Tensor:
        """The original's embeddings (B, D) of captions, projected, not normalised, fp32.

        Args:
            states: (B, w) pooled states of the captions by the original text trunk, where they are at hand.

        Raises:
            ValueError: the reference was made without ``captions``.
        """
        if self._captions is None:
            raise ValueError("this reference keeps no text side: make it with captions=True")
        with _original(self._captions):
            if states is None:
                states = encode_prompts(self._captions, tokenizer, captions, distinct=False)
            with torch.autocast(states.device.type, enabled=False):  # as the model's own forward projects
                return self._captions.project_text(states).float()

    def to(self, device: torch.device | str) -> ReferenceModel:
        """Move what the reference owns; a shared model is its trainer's to move."""
        self.logit_scale = self.logit_scale.to(device)
        if self.text_features is not None:
            self.text_features = self.text_features.to(device)
        if not self.shared:
            self.model.to(device)
        return self

    def assert_unchanged(self) -> None:
        """Compare all weights in use with those at the start, bit by bit.

        Raises:
            ReferenceChangedError: naming the first weight that changed.
        """
        now = self._fingerprints()
        changed = [name for name, value in now.items() if value != self._before.get(name)]
        if changed or now.keys() != self._before.keys():
            raise ReferenceChangedError(
                f"{len(changed)} weights of the reference model changed, such as {changed[:1]}: a shared "
                "reference needs frozen base weights; use ReferenceModel(model, shared=False) to copy them"
            )

    def _fingerprints(self) -> dict[str, str]:
        tensors = _base_tensors(self.model)
        if self._captions is not None:
            tensors |= _base_tensors(self._captions, _TEXT)
        return fingerprints(tensors)


_IMAGE = ("vision_model.", "visual_projection.")
_TEXT = ("text_model.", "text_projection.")


def _base_tensors(model: RobustDualEncoder, parts: tuple[str, ...] = _IMAGE) -> dict[str, nn.Parameter]:
    """Weights behind the original's image features, or text features; adapters and prompt left out."""
    own = tuple(
        f"{name}.{key}." for name in adapter_layers(model) for key in ("base_layer", "original_module")
    )
    adapted = tuple(f"{name}." for name in adapter_layers(model))
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if name.startswith(parts) and (name.startswith(own) or not name.startswith(adapted))
    }


def _copy_of(model: RobustDualEncoder, with_text: bool = False) -> RobustDualEncoder:
    # What the memo holds is not copied: the text tower is left out unless it is wanted, and with shared
    # configs the copy follows the trained model's choice of attention kernel.
    configs = (model.config, model.config.vision_config, model.config.text_config)
    memo = {id(config): config for config in configs}
    if not with_text:
        memo[id(model.text_model)] = nn.Module()
    twin = copy.deepcopy(model, memo)
    remove_visual_prompt(twin)
    return twin.requires_grad_(False).eval()


@contextmanager
def _original(model: RobustDualEncoder) -> Iterator[None]:
    """Adapters and prompt off, evaluation mode; all restored."""
    with adapters_off(model), visual_prompt_off(model), evaluating(model):
        yield
