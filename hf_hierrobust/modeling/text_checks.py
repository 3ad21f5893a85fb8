"""Prompts that a text encoder cannot tell apart are refused: accuracy over them would mean nothing.

A checkpoint without its tokenizer's files loads without a word, its tokenizer then writes unknown tokens
only, and every class gets the same embedding: what is reported is 1/K.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

EQUAL = 1e-6
"""Relative distance below which two states are one: what batching and padding leave of equal ones in fp32."""


class TokenizerError(ValueError):
    """The tokenizer is not the text encoder's, or it reads different prompts alike."""


def check_prompts(
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str] | Sequence[Sequence[str]],
    distinct: bool = True,
) -> None:
    """Refuse prompts that the text encoder would cut or could not tell apart, before anything is encoded.

    Args:
        config: of the dual encoder.
        prompts: N prompts, or N lists of T prompts (one per template). Equal ones are twins, and allowed.
        distinct: different prompts must be different tokens; False for captions, which may differ in case.

    Raises:
        ValueError: a prompt longer than the context.
        TokenizerError: see `check_tokens`; or two different prompts that are the same tokens.
    """
    rows = [(p,) if isinstance(p, str) else tuple(p) for p in prompts]
    unique = list(dict.fromkeys(prompt for row in rows for prompt in row))
    ids = tokenizer(unique, truncation=False, padding=False, verbose=False)["input_ids"]
    check_tokens(config, unique, ids)
    context = config.text_config.max_position_embeddings
    longest = max(range(len(ids)), key=lambda i: len(ids[i]))
    if len(ids[longest]) > context:
        raise ValueError(
            f"prompt {unique[longest]!r} has {len(ids[longest])} tokens but the text encoder's context is "
            f"{context}: shorten the class name or the template"
        )
    if not distinct:
        return
    tokens, owner = dict(zip(unique, map(tuple, ids))), {}
    for row in dict.fromkeys(rows):
        other = owner.setdefault(tuple(tokens[prompt] for prompt in row), row)
        if other != row:
            raise TokenizerError(
                f"prompts {other[0]!r} and {row[0]!r} are the same tokens to this tokenizer, so that their "
                "classes cannot be told apart: rename one, or use the checkpoint's own tokenizer"
            )


def check_tokens(config: PreTrainedConfig, texts: Sequence[str], ids: Sequence[Sequence[int]]) -> None:
    """Refuse token ids that cannot be those of the text encoder's own tokenizer.

    Args:
        config: of the dual encoder.
        ids: of each text, with the special tokens, unpadded.

    Raises:
        TokenizerError: an id outside the vocabulary, or, for CLIP, no end token to pool at.
    """
    text_config = config.text_config
    for text, row in zip(texts, ids):
        if len(row) == 0 or max(row) >= text_config.vocab_size or min(row) < 0:
            raise TokenizerError(
                f"the tokenizer writes the ids {list(row[:6])} for {text[:60]!r}, but the text encoder has "
                f"{text_config.vocab_size} tokens: load the tokenizer of this checkpoint"
            )
        if config.model_type != "clip":
            continue
        end = text_config.eos_token_id
        # Old checkpoints name a wrong id, 2, and transformers pools at the highest one.
        pooled = row.index(max(row)) == len(row) - 1 if end == 2 else end in row
        if not pooled:
            what = "an end token" if end == 2 else f"the end token {end}"
            raise TokenizerError(
                f"the tokenizer does not write {what}, at which the text encoder pools, for {text[:60]!r} "
                f"(but {list(row[:6])}): all prompts would be encoded alike. The tokenizer's files "
                "are missing or another model's"
            )


def check_distinct(prompts: Sequence[str] | Sequence[Sequence[str]], states: Tensor) -> None:
    """Refuse equal text states of different prompts.

    Args:
        prompts: N prompts, or N lists of T; equal ones are twins, whose states are equal by right.
        states: (N, ...), floating.

    Raises:
        TokenizerError: naming two such prompts.
    """
    rows = [(p,) if isinstance(p, str) else tuple(p) for p in prompts]
    kept = list({row: place for place, row in enumerate(rows)}.values())
    flat = states.detach()[kept].flatten(1).double().cpu()
    if len(flat) < 2:
        return
    # Equal rows are neighbours in the order of one random projection: no N x N table.
    direction = torch.randn(flat.shape[1], dtype=flat.dtype, generator=torch.Generator().manual_seed(0))
    order = (flat @ direction).argsort()
    one, next_one = flat[order[:-1]], flat[order[1:]]
    near = ((one - next_one).norm(dim=1) <= EQUAL * one.norm(dim=1)).nonzero()[:, 0].tolist()
    if near:
        first, second = (rows[kept[order[near[0] + step]]][0] for step in (0, 1))
        raise TokenizerError(
            f"the text encoder gives {first!r} and {second!r} the same state ({len(near) + 1} of {len(flat)} "
            "prompts at least): their classes cannot be told apart. Check that the checkpoint has its "
            "tokenizer's files and trained text weights"
        )
