"""Word substitution guided by the gradient of the attacked model's own token embeddings.

Source: HotFlip (1712.06751), which flips the token whose replacement promises most to first order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .base import TEXT_ATTACKS
from .encoder import TextEncoder
from .scores import TextScore
from .sentence import STOP_WORDS, Sentence
from .words import Proposal, WordAttack

_BATCH_SIZE = 256


@TEXT_ATTACKS.register
@dataclass(kw_only=True)
class GradientAttack(WordAttack):
    """HotFlip restricted to whole words.

    In place of each word stands one token with the mean word embedding; the score's gradient there ranks
    all words of the vocabulary to first order, ``score + g (e_v - e_mean)``. Words are tried by their best
    estimate, and the ``num_candidates`` best substitutes of a word are then scored in truth. HotFlip's own
    gradient, at the word itself, would say nothing: the label-free score has its minimum at the original
    text. The holder also gives a word of several tokens the room of the one token that replaces it.

    Args:
        vocabulary: words to choose from; those that are not one token of the encoder's tokenizer are left
            out. None takes all that are, which in a byte-pair vocabulary includes endings such as "ing":
            give a word list to keep to real words.

    Raises:
        ValueError: at the attack, fewer than two words of the vocabulary are usable.
    """

    name: ClassVar[str] = "gradient"
    vocabulary: Sequence[str] | None = None

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.vocabulary, str):
            raise ValueError(f"vocabulary={self.vocabulary!r} is one text: give a list of words")

    def propose(
        self, sentences: list[Sentence], clean: Tensor, encoder: TextEncoder, score: TextScore
    ) -> list[list[Proposal]]:
        words = self._usable_words(encoder)
        names, token_ids = list(words), list(words.values())
        table = encoder.word_embeddings(token_ids)
        column = {name.casefold(): i for i, name in enumerate(names)}

        sites, texts, holders = self._sites(sentences, words, encoder)
        found: list[list[tuple[float, Proposal]]] = [[] for _ in sentences]
        for start in range(0, len(sites), _BATCH_SIZE):
            part = slice(start, start + _BATCH_SIZE)
            owners = torch.tensor([row for row, _ in sites[part]], device=encoder.device)
            estimates = _first_order(texts[part], holders[part], owners, table, encoder, score)
            for site, (row, word) in enumerate(sites[part]):
                own = column.get(sentences[row].words[word].casefold())
                if own is not None:
                    estimates[site, own] = -torch.inf
            values, columns = estimates.topk(min(self.num_candidates, len(names) - 1))
            for (row, word), value, best in zip(sites[part], values[:, 0].tolist(), columns.tolist()):
                found[row].append((value, Proposal(word, [names[i] for i in best])))
        return [[p for _, p in sorted(f, key=lambda pair: pair[0], reverse=True)] for f in found]

    def _usable_words(self, encoder: TextEncoder) -> dict[str, int]:
        words = {w: i for w, i in encoder.whole_words.items() if w not in STOP_WORDS}
        if self.vocabulary is not None:
            allowed = {word.casefold() for word in self.vocabulary}
            words = {w: i for w, i in words.items() if w.casefold() in allowed}
        if len(words) < 2:
            raise ValueError(
                f"only {len(words)} words of vocabulary={self.vocabulary!r} are single tokens of the text "
                "encoder's tokenizer: a substitution needs at least 2"
            )
        return words

    @staticmethod
    def _sites(sentences, words: dict[str, int], encoder: TextEncoder):
        """Every replaceable word: its (sentence, place), the text with a one-token holder there, its id."""
        sites, texts, holders = [], [], []
        taken = encoder.tokenize([s.text for s in sentences])
        for row, sentence in enumerate(sentences):
            # A token that the text does not have, so that its place can be found among the tokens.
            holder = next((w for w, token_id in words.items() if token_id not in taken[row]), None)
            for place, word in enumerate(sentence.words):
                if holder is not None and word not in STOP_WORDS:
                    sites.append((row, place))
                    texts.append(sentence.replace({place: holder}))
                    holders.append(words[holder])
        return sites, texts, holders


def _first_order(
    texts: list[str],
    holders: list[int],
    owners: Tensor,
    table: Tensor,
    encoder: TextEncoder,
    score: TextScore,
) -> Tensor:
    """First-order estimates (M, V) of the score with each word of ``table`` (V, w) at the holder's place."""
    batch = encoder.tokens(texts)
    rows = torch.arange(len(texts), device=encoder.device)
    places = (batch.input_ids == torch.tensor(holders, device=encoder.device)[:, None]).int().argmax(1)
    embeddings, mean = encoder.token_embeddings(batch), table.mean(0)
    embeddings[rows, places] = mean
    embeddings.requires_grad_()
    values = score(encoder.from_embeddings(batch, embeddings), owners)
    (gradient,) = torch.autograd.grad(values.sum(), [embeddings])
    return values.detach()[:, None] + gradient[rows, places] @ (table - mean).T
