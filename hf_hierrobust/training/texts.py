"""The text half of a training step: prompts of classes and nodes, and the captions of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..adapters.lora import adapters_off
from ..attacks import TextAttack
from ..modeling import RobustDualEncoder, TextEncoder, encode_prompts, text_inputs

Draw = Callable[[], torch.Generator]
"""The next generator of random starts; every call is another one."""


class Batch(NamedTuple):
    """One batch before any forward.

    Attributes:
        pixels, labels: (B, 3, H, W) in [0, 1] and (B,) class indices.
        captions, attacked_captions: B texts each that fit the text encoder, for objectives that need them.
    """

    pixels: Tensor
    labels: Tensor
    captions: tuple[str, ...] | None = None
    attacked_captions: tuple[str, ...] | None = None


class TextSide:
    """The text half of every forward: cached states of a frozen trunk, tokens of one that trains.

    Args:
        model, tokenizer: as loaded, before training.
        prompts: of the objective's text nodes; classes first.
        trains_trunk: whether the text tower's own weights will change.

    Attributes:
        states: (N, w) pooled states of the prompts by the original model.
    """

    def __init__(
        self,
        model: RobustDualEncoder,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Sequence[str],
        trains_trunk: bool = False,
    ):
        self.tokenizer, self.prompts, self.trains_trunk = tokenizer, tuple(prompts), trains_trunk
        with adapters_off(model):  # adapters need not start as the identity
            self.states = encode_prompts(model, tokenizer, self.prompts)
        self._row = {prompt: row for row, prompt in enumerate(self.prompts)}

    def current_states(self, core: RobustDualEncoder) -> Tensor:
        """(N, w) pooled states of the prompts under the current weights."""
        return encode_prompts(core, self.tokenizer, self.prompts) if self.trains_trunk else self.states

    def inputs(self, core: RobustDualEncoder, texts: Sequence[str]) -> dict[str, Tensor]:
        """Arguments of the model's forward for these texts."""
        if self.trains_trunk:
            return text_inputs(core, self.tokenizer, texts)
        return {"text_states": self._frozen_states(core, texts)}

    @torch.no_grad()
    def features(self, core: RobustDualEncoder, texts: Sequence[str]) -> Tensor:
        """Embeddings (N, D) of texts under the current weights, as constants."""
        if self.trains_trunk:
            return core.project_text(encode_prompts(core, self.tokenizer, texts))
        return core.project_text(self._frozen_states(core, texts))

    def _frozen_states(self, core: RobustDualEncoder, texts: Sequence[str]) -> Tensor:
        if texts is self.prompts:
            return self.states
        new = [text for text in dict.fromkeys(texts) if text not in self._row]
        row, states = self._row, self.states
        if new:
            row = row | {text: len(states) + place for place, text in enumerate(new)}
            states = torch.cat([states, encode_prompts(core, self.tokenizer, new)])
        return states[[row[text] for text in texts]]


@dataclass
class Captions:
    """The captions of a batch, clean and attacked: the data's own or, where they have none, class prompts.

    Args:
        prompts: of the classes, by label.
        encoder: of the model that trains; it says how long a caption may be.
        attack: on captions; None attacks none.
        autocast: context of the attack's forwards.
    """

    prompts: Sequence[str]
    encoder: TextEncoder
    attack: TextAttack | None
    autocast: Callable[[], AbstractContextManager]

    def of(self, labels: Tensor, captions: Sequence[str] | None) -> tuple[str, ...]:
        """Texts that fit the context, one an image.

        Raises:
            ValueError: images with neither caption nor label.
        """
        if captions is not None:
            return tuple(self.encoder.fit(captions))
        if labels.min() < 0:
            raise ValueError("images with neither caption nor label: there is no text to train on")
        return tuple(self.prompts[label] for label in labels.tolist())

    def attacked(self, captions: Sequence[str], draw: Draw) -> tuple[str, ...] | None:
        """The same captions after the text attack, None without one."""
        if self.attack is None:
            return None
        # Outside model(...) nothing is autocast unless one asks for it.
        with self.autocast():
            return tuple(self.attack(list(captions), self.encoder, generator=draw()).texts)
