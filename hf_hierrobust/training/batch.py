"""What a training step starts from: pixels, labels and, for objectives that train on texts, captions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import logging

from ..attacks import TextAttack, check_pixels
from ..modeling import TextEncoder

logger = logging.get_logger(__name__)

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


@dataclass
class BatchReader:
    """From what the collator made to a `Batch`.

    Args:
        prompts: of the classes, by label; they stand for captions where the data have none.
        encoder: of the model that trains, which says how long a caption may be; None reads no captions.
        attack: on captions; None attacks none.
        autocast: context of the attack's forwards.
    """

    prompts: Sequence[str]
    encoder: TextEncoder | None
    attack: TextAttack | None
    autocast: Callable[[], AbstractContextManager]

    def read(self, inputs: Mapping[str, object], draw: Draw) -> Batch:
        """Pixels, labels and, where the objective needs them, captions and attacked captions.

        Args:
            inputs: ``pixels`` (B, 3, H, W) in [0, 1], ``labels`` (B,) and perhaps ``captions``, B texts.
            draw: gives the generator of the text attack.

        Raises:
            TypeError, ValueError: see `check_pixels`; images with neither caption nor label.
        """
        check_pixels(inputs["pixels"])
        batch = Batch(inputs["pixels"], inputs["labels"])
        if self.encoder is None:
            return batch
        captions = self._captions(batch.labels, inputs.get("captions"))
        if self.attack is None:
            return batch._replace(captions=captions)
        # Outside model(...) nothing is autocast unless one asks for it.
        with self.autocast():
            attacked = self.attack(list(captions), self.encoder, generator=draw()).texts
        return batch._replace(captions=captions, attacked_captions=tuple(attacked))

    def warn_of_long(self, captions: Sequence[str] | None) -> None:
        """One line if captions of the training data are longer than the text encoder's context."""
        if self.encoder is None or not captions:
            return
        if count := self.encoder.too_long(captions):
            logger.warning(
                f"{count} of {len(captions)} captions are longer than the {self.encoder.context} tokens of "
                "the text encoder: their ends are cut off"
            )

    def read_clean(self, inputs: Mapping[str, object]) -> Batch:
        """The same images; every caption, attacked or not, is the class prompt."""
        check_pixels(inputs["pixels"])
        batch = Batch(inputs["pixels"], inputs["labels"])
        if self.encoder is None:
            return batch
        prompts = self._captions(batch.labels.clamp_min(0), None)
        return batch._replace(captions=prompts, attacked_captions=prompts)

    def _captions(self, labels: Tensor, captions: Sequence[str] | None) -> tuple[str, ...]:
        if captions is not None:
            return tuple(self.encoder.fit(captions))
        if labels.min() < 0:
            raise ValueError("images with neither caption nor label: there is no text to train on")
        return tuple(self.prompts[label] for label in labels.tolist())
