"""What attacks on texts need of the attacked model's text side; `modeling.TextEncoder` is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn


class TokenBatch(Protocol):
    """Padded token ids (N, T) of N texts."""

    input_ids: Tensor


class TextEncoder(Protocol):
    """Texts to projected, un-normalised embeddings (N, D) in fp32, and the door for gradients.

    Attributes:
        module: the model, which attacks freeze.
        tokenizer: with ``all_special_ids``.
        context: most tokens of a text, special ones included.
        whole_words: words of one token each, and their ids.
        mean_word_norm: mean length of the model's whole-word embeddings.
    """

    module: nn.Module
    tokenizer: object
    context: int
    whole_words: dict[str, int]
    mean_word_norm: float

    @property
    def device(self) -> torch.device: ...

    def __call__(self, texts: Sequence[str]) -> Tensor: ...

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]: ...

    def encode_ids(self, ids: Sequence[Sequence[int]]) -> Tensor: ...

    def word_embeddings(self, token_ids: Sequence[int]) -> Tensor: ...

    def tokens(self, texts: Sequence[str]) -> TokenBatch: ...

    def token_embeddings(self, batch: TokenBatch) -> Tensor: ...

    def from_embeddings(self, batch: TokenBatch, embeddings: Tensor) -> Tensor: ...
