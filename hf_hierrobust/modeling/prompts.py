"""Class prompts to pooled states of the text trunk."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..modes import evaluating
from .dual_encoder import RobustDualEncoder
from .text_checks import check_distinct, check_prompts
from .text_encoder import text_inputs


@torch.no_grad()
def encode_prompts(
    model: RobustDualEncoder,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str] | Sequence[Sequence[str]],
    batch_size: int = 256,
    *,
    distinct: bool = True,
) -> Tensor:
    """Pooled states of the text trunk, before the projection; every module's mode stays as it was.

    Args:
        model, tokenizer: of one checkpoint.
        prompts: N prompts, or N lists of T prompts (one per template).
        batch_size: prompts a forward.
        distinct: different prompts must get different states; False for captions.

    Returns:
        (N, w), or (N, T, w) for several templates. They stay valid while the trunk is frozen; the
        projection may be trained.

    Raises:
        ValueError: no prompts, unequal numbers of templates, or a prompt longer than the context.
        TokenizerError: the tokenizer is not this text encoder's, or two different prompts have one state.
    """
    if len(prompts) == 0:
        raise ValueError("prompts is empty: a zero-shot classifier needs at least one class")
    rows = [[p] if isinstance(p, str) else list(p) for p in prompts]
    if len({len(row) for row in rows}) > 1:
        raise ValueError("every class needs the same number of prompts (one per template)")
    flat = [prompt for row in rows for prompt in row]
    check_prompts(model.config, tokenizer, rows, distinct)
    parts = []
    with evaluating(model):
        for start in range(0, len(flat), batch_size):
            batch = text_inputs(model, tokenizer, flat[start : start + batch_size])
            parts.append(model.pool_text(**batch).float())
    states = torch.cat(parts)
    if distinct:
        check_distinct(rows, states.view(len(rows), -1))
    return states if len(rows[0]) == 1 else states.view(len(rows), len(rows[0]), -1)
