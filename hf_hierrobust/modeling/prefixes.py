"""Texts laid out so that a common beginning is encoded once; exact for causal encoders such as CLIP's.

The state of a token under causal attention depends on the tokens before it alone, so that texts form a tree
in which every prefix is one node. A packed row holds a part of that tree instead of one text: each token has
its position in its text and attends to itself and its ancestors. The altered copies of a caption, which an
attack on words encodes by the hundred, and class prompts of one template differ from some word on only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class PackedTexts(NamedTuple):
    """N texts in R rows of L tokens.

    Attributes:
        input_ids: (R, L), padded.
        position_ids: (R, L), each token's position in its text.
        visible: (R, 1, L, L) bool, what each token attends to; padding attends to itself.
        ends: (N, 2), row and column of each text's last token.
    """

    input_ids: Tensor
    position_ids: Tensor
    visible: Tensor
    ends: Tensor


def pack_prefixes(texts: Sequence[Sequence[int]], width: int, padding: int) -> PackedTexts:
    """Lay out texts, each prefix once in a row, in rows of at most ``width`` tokens.

    Rows are filled in the order of the dictionary, where neighbours share most; a prefix that continues in
    the next row is repeated there.

    Args:
        texts: N non-empty lists of token ids, none longer than ``width``.
        padding: token id that fills the rows.
    """
    rows: list[list[int]] = []
    paths: list[list[int]] = [[] for _ in texts]  # of each text, the columns of its tokens
    places: list[tuple[int, int]] = [(0, 0) for _ in texts]  # of each text, its row and its first own token
    last: Sequence[int] = ()
    path: list[int] = []
    for i in sorted(range(len(texts)), key=lambda i: tuple(texts[i])):
        shared = _common(last, texts[i])
        if not rows or len(rows[-1]) + len(texts[i]) - shared > width:
            rows.append([])
            shared = 0
        start, new = len(rows[-1]), texts[i][shared:]
        path = [*path[:shared], *range(start, start + len(new))]
        rows[-1] += new
        last, paths[i], places[i] = texts[i], path, (len(rows) - 1, shared)

    length = max(map(len, rows))
    input_ids = torch.tensor([[*row, *[padding] * (length - len(row))] for row in rows])
    position_ids = torch.zeros_like(input_ids)
    visible = torch.eye(length, dtype=torch.bool).repeat(len(rows), 1, 1)
    for path, (row, shared) in zip(paths, places):
        columns, depth = torch.tensor(path), len(path)
        position_ids[row, columns] = torch.arange(depth)
        ancestors = torch.ones(depth - shared, depth, dtype=torch.bool).tril(shared)
        visible[row, columns[shared:, None], columns] = ancestors
    ends = torch.tensor([(row, path[-1]) for path, (row, _) in zip(paths, places)])
    return PackedTexts(input_ids, position_ids, visible[:, None], ends)


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two texts begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
