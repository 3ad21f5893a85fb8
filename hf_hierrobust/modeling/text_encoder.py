"""Texts to projected embeddings, and the door that gradient attacks on texts need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..modes import evaluating
from .prefixes import pack_prefixes
from .text_checks import check_tokens


class TokenBatch(NamedTuple):
    """Padded token ids.

    Attributes:
        input_ids: (N, T).
        attention_mask: (N, T), 0 at padding; None for models that attend to their padding (SigLIP).
    """

    input_ids: Tensor
    attention_mask: Tensor | None


class TextEncoder:
    """Callable from texts to projected, un-normalised embeddings (N, D) in fp32, without gradients.

    It reads the model's current weights on every call, runs in evaluation mode and in the precision of the
    surrounding autocast, and leaves every module's mode as it was. Attacks freeze it through ``module``.

    Args:
        model: a dual encoder with ``get_text_features`` and ``text_model``, such as CLIP or SigLIP.
        tokenizer: its tokenizer.
        batch_size: texts a forward. Where the text tower is causal, a beginning that texts share is encoded
            once (`prefixes`); elsewhere each is padded as its family asks.

    Raises:
        ValueError: the model has no text tower.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int = 256):
        if getattr(model.config, "text_config", None) is None or not hasattr(model, "get_text_features"):
            raise ValueError(
                f"model is a {type(model).__name__} without a text tower: pass a dual encoder, "
                "e.g. a CLIPModel"
            )
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        self.module, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        self.context: int = model.config.text_config.max_position_embeddings
        self._trims = _may_trim(model.config)

    @property
    def device(self) -> torch.device:
        return self.module.device

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (N, D); equal texts are encoded once.

        Raises:
            ValueError: no texts, or one longer than the context.
            TokenizerError: the tokenizer is not this text encoder's.
        """
        if len(texts) == 0:
            raise ValueError("texts is empty: there is nothing to encode")
        ids = self.tokenize(texts)
        self._check(texts, ids)
        return self.encode_ids(ids)

    def fit(self, texts: Sequence[str]) -> list[str]:
        """Texts that are too long without their last words, as far as the context asks.

        Where one word alone is too long, as in Chinese or a web address, its end is cut by tokens.
        """
        found = list(texts)
        for row, ids in enumerate(self.tokenize(found)):
            words = found[row].split()
            while len(ids) > self.context and len(words) > 1:
                # Each word is a token at least: at once as many as are surely too many.
                words = words[: min(len(words) - 1, self.context)]
                found[row] = " ".join(words)
                (ids,) = self.tokenize([found[row]])
            if len(ids) > self.context:
                found[row] = self._longest_beginning(found[row])
                (ids,) = self.tokenize([found[row]])
            self._check([found[row]], [ids])
        return found

    def too_long(self, texts: Sequence[str]) -> int:
        """How many of these texts have more tokens than the context: those that `fit` cuts."""
        return sum(len(ids) > self.context for ids in self.tokenize(texts))

    def _longest_beginning(self, word: str) -> str:
        """As many characters of a text that is too long as fit, found by bisection."""
        fits, too_many = 0, len(word)
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            (ids,) = self.tokenize([word[:middle]])
            fits, too_many = (middle, too_many) if len(ids) <= self.context else (fits, middle)
        return word[:fits]

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text with the special tokens, neither truncated nor padded."""
        unique, rows = _unique(texts)
        # The tokenizer's own warning about long texts would come before our error, or without need of one.
        ids = self.tokenizer(unique, truncation=False, padding=False, verbose=False)["input_ids"]
        return [ids[row] for row in rows]

    @torch.no_grad()
    def encode_ids(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """Embeddings (N, D) of unpadded token ids, none longer than ``context``; equal ones encoded once."""
        unique, rows = _unique(map(tuple, ids))
        order = sorted(range(len(unique)), key=unique.__getitem__)  # those that begin alike in one batch
        with evaluating(self.module):
            parts = [
                self._encode([unique[row] for row in order[start : start + self.batch_size]])
                for start in range(0, len(order), self.batch_size)
            ]
        place = torch.empty(len(order), dtype=torch.long)
        place[torch.tensor(order)] = torch.arange(len(order))
        return torch.cat(parts)[place[torch.tensor(rows)].to(self.device)]

    def tokens(self, texts: Sequence[str]) -> TokenBatch:
        """One padded batch of these texts, in their order.

        Raises:
            ValueError: a text is longer than the context.
        """
        ids = self.tokenize(texts)
        self._check(texts, ids)
        return self._pad(ids)

    @torch.no_grad()
    def token_embeddings(self, batch: TokenBatch) -> Tensor:
        """Input token embeddings (N, T, w) in fp32, before positions are added; a copy without gradients."""
        return self._table(batch.input_ids).float()

    def from_embeddings(self, batch: TokenBatch, embeddings: Tensor) -> Tensor:
        """Embeddings (N, D) of a batch whose token embeddings are replaced, differentiable in them.

        The mode and the parameters' flags are the caller's business (`attacks.frozen`).

        Args:
            batch: from `tokens`; its ids still say where the text ends.
            embeddings: (N, T, w).

        Raises:
            ValueError: ``embeddings`` is not one vector per token.
        """
        if embeddings.shape[:-1] != batch.input_ids.shape:
            raise ValueError(
                f"embeddings has shape {tuple(embeddings.shape)} but the batch has token ids of shape "
                f"{tuple(batch.input_ids.shape)}: pass one vector per token"
            )
        # transformers' CLIP text model takes no inputs_embeds.
        hook = self._table.register_forward_hook(lambda module, args, output: embeddings.to(output.dtype))
        try:
            return self._features(batch)
        finally:
            hook.remove()

    @cached_property
    def whole_words(self) -> dict[str, int]:
        """Words of two letters or more that are one token of the vocabulary, with its id."""
        found: dict[str, int] = {}
        for token, token_id in self.tokenizer.get_vocab().items():
            word = token.removesuffix("</w>").lstrip("Ġ▁")  # word marks of CLIP's and of other tokenizers
            if len(word) > 1 and word.isalpha():
                found[word] = token_id
        # The test of a whole word: alone, the tokenizer leaves it in one piece.
        pieces = self.tokenizer(list(found), add_special_tokens=False)["input_ids"]
        words = {word: ids[0] for word, ids in zip(found, pieces) if len(ids) == 1}
        return {word: words[word] for word in sorted(words)}

    def word_embeddings(self, token_ids: Sequence[int]) -> Tensor:
        """Rows (V, w) of the input embedding table in fp32, without gradients."""
        ids = torch.tensor(token_ids, device=self.device)
        return self.token_embeddings(TokenBatch(ids, None))

    @property
    def mean_word_norm(self) -> float:
        """Mean Euclidean norm of the input embeddings of `whole_words`."""
        return float(self.word_embeddings(list(self.whole_words.values())).norm(dim=1).mean())

    @property
    def _table(self) -> nn.Module:
        return self.module.text_model.get_input_embeddings()

    def _features(self, batch: TokenBatch) -> Tensor:
        mask = {} if batch.attention_mask is None else {"attention_mask": batch.attention_mask}
        return self.module.get_text_features(input_ids=batch.input_ids, **mask).pooler_output.float()

    def _encode(self, ids: Sequence[Sequence[int]]) -> Tensor:
        kernel = self.module.config.text_config._attn_implementation
        if not self._trims or kernel not in ("eager", "sdpa"):  # the two that take any mask
            return self._features(self._pad(ids))
        pack = pack_prefixes([self._pooled(row) for row in ids], self.context, self.tokenizer.pad_token_id)
        mask = pack.visible.to(self.device)
        if kernel == "eager":  # adds its mask
            dtype = self.module.dtype
            mask = torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)
        states = self.module.text_model(
            input_ids=pack.input_ids.to(self.device),
            attention_mask=mask,
            position_ids=pack.position_ids.to(self.device),
        ).last_hidden_state
        row, column = pack.ends.to(self.device).unbind(1)
        return self.module.text_projection(states[row, column]).float()

    def _pooled(self, ids: Sequence[int]) -> Sequence[int]:
        """The ids up to the token that CLIP pools at; those after it do not matter under causal attention."""
        end = self.module.config.text_config.eos_token_id
        # transformers keeps a wrong id, 2, in old checkpoints and pools at the highest id there; that of the
        # padding, were it higher, is out of the way here.
        end = max(ids) if end == 2 else end
        return ids[: ids.index(end) + 1] if end in ids else ids[:1]

    def _pad(self, ids: Sequence[Sequence[int]]) -> TokenBatch:
        width = max(map(len, ids)) if self._trims else self.context
        padding = self.tokenizer.pad_token_id
        padded = torch.tensor([[*row, *[padding] * (width - len(row))] for row in ids])
        if not self._trims:
            return TokenBatch(padded.to(self.device), None)
        lengths = torch.tensor([len(row) for row in ids])
        mask = (torch.arange(width) < lengths[:, None]).long()
        return TokenBatch(padded.to(self.device), mask.to(self.device))

    def _check(self, texts: Sequence[str], ids: Sequence[Sequence[int]]) -> None:
        check_tokens(self.module.config, texts, ids)
        longest = max(range(len(ids)), key=lambda row: len(ids[row]))
        if len(ids[longest]) > self.context:
            raise ValueError(
                f"text {texts[longest]!r} has {len(ids[longest])} tokens but the text encoder's context is "
                f"{self.context}: shorten it"
            )


def text_inputs(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> dict[str, Tensor]:
    """Arguments of the model's forward for N texts, padded as its family needs it, on its device.

    Returns:
        ``input_ids`` (N, T) and, for CLIP, ``attention_mask`` (N, T).
    """
    if _may_trim(model.config):
        # Padding to the longest prompt only: a prompt of 15 tokens costs a fifth of a padded 77.
        return dict(tokenizer(list(texts), padding=True, return_tensors="pt").to(model.device))
    context = model.config.text_config.max_position_embeddings
    batch = tokenizer(list(texts), padding="max_length", max_length=context, return_tensors="pt")
    return {"input_ids": batch["input_ids"].to(model.device)}


def _may_trim(config: PreTrainedConfig) -> bool:
    # CLIP is causal and pools at the end token, so that padding changes nothing. SigLIP pools at the last
    # position, attends to its padding and was trained with texts padded to the whole context.
    return config.model_type == "clip"


def _unique(items: Iterable) -> tuple[list, list[int]]:
    """The distinct items in the order of their first appearance, and each item's place among them."""
    place: dict = {}
    rows = [place.setdefault(item, len(place)) for item in items]
    return list(place), rows
