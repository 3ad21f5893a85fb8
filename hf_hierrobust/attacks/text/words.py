"""Attacks that replace words of a caption or class prompt by others: MMCoA's BERT-attack and synonyms.

Source: BERT-Attack (2004.09984) as used by MMCoA (2404.19287), its text attack, corrected as OC-18 says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...options import check_between, check_counts, check_flag
from .base import TEXT_ATTACKS, TextAttack
from .candidates import Candidates, MaskedLM, Synonyms
from .encoder import TextEncoder
from .scores import TextScore
from .sentence import Sentence

SentenceEncoder = Callable[[list[str]], Tensor]
UNKNOWN = "[UNK]"


class Proposal(NamedTuple):
    """A word (its place in the sentence) and what may stand in its stead."""

    word: int
    substitutes: Sequence[str]


@dataclass(kw_only=True)
class WordAttack(TextAttack):
    """Greedy substitution of whole words; subclasses say which and by what (`propose`).

    Each text's words are tried in the proposed order until ``num_words`` have changed. Of a word's
    substitutes the one with the highest score is taken if it beats the text so far. All texts advance
    together: one call of the encoder scores the substitutes of the current word of every text. Under the
    default score the first word with a substitute changes, so that there are ``num_words`` such calls.

    Args:
        num_words: words to replace in each text, at most.
        num_candidates: substitutes considered for a word.
        semantic_filter: sentence encoder, texts -> (N, E); substitutes that take the text further from the
            original than ``min_similarity`` are dropped. None keeps all.
        min_similarity: cosine, 0.4 as in the check that MMCoA's code has switched off.
    """

    num_words: int = 1
    num_candidates: int = 10
    semantic_filter: SentenceEncoder | None = None
    min_similarity: float = 0.4

    def __post_init__(self):
        check_counts(self, "num_words", "num_candidates")
        check_between(self, "min_similarity", -1, 1)
        if self.semantic_filter is not None and not callable(self.semantic_filter):
            raise ValueError(
                f"semantic_filter={self.semantic_filter!r} must be a function from texts to embeddings: "
                "build the attack in Python"
            )

    def propose(
        self, sentences: list[Sentence], clean: Tensor, encoder: TextEncoder, score: TextScore
    ) -> list[list[Proposal]]:
        """What to try on each sentence, best first."""
        raise NotImplementedError

    def parse(self, text: str) -> Sentence:
        return Sentence.parse(text)

    def run(
        self,
        texts: list[str],
        clean: Tensor,
        encoder: TextEncoder,
        score: TextScore,
        generator: torch.Generator | None,
    ) -> tuple[list[str], Tensor]:
        sentences = [self.parse(text) for text in texts]
        queues = [iter(proposals) for proposals in self.propose(sentences, clean, encoder, score)]
        chosen: list[dict[int, str]] = [{} for _ in texts]
        best = clean.tolist()
        active = list(range(len(texts)))
        while active := [row for row in active if len(chosen[row]) < self.num_words]:
            trials = [(row, next(queues[row], None)) for row in active]
            trials = [(row, proposal) for row, proposal in trials if proposal is not None]
            active = [row for row, _ in trials]
            variants = [
                sentences[row].replace({**chosen[row], word: substitute})
                for row, (word, substitutes) in trials
                for substitute in substitutes
            ]
            owners = [row for row, proposal in trials for _ in proposal.substitutes]
            values = iter(self._score_similar(variants, owners, texts, encoder, score))
            for row, (word, substitutes) in trials:
                reached = [next(values) for _ in substitutes]
                top = max(range(len(reached)), key=reached.__getitem__, default=None)
                if top is not None and reached[top] > best[row]:
                    chosen[row][word], best[row] = substitutes[top], reached[top]
        attacked = [sentence.replace(words) for sentence, words in zip(sentences, chosen)]
        return attacked, torch.tensor(best, dtype=clean.dtype, device=clean.device)

    def _score_similar(self, variants, owners, texts, encoder, score) -> list[float]:
        if self.semantic_filter is None or not variants:
            return score_variants(variants, owners, texts, encoder, score)
        originals = F.normalize(self.semantic_filter(texts).float(), dim=-1)
        meanings = F.normalize(self.semantic_filter(variants).float(), dim=-1)
        near = ((originals[owners] * meanings).sum(-1) >= self.min_similarity).tolist()
        kept = [i for i, ok in enumerate(near) if ok]
        scored = score_variants([variants[i] for i in kept], [owners[i] for i in kept], texts, encoder, score)
        values = [-torch.inf] * len(variants)
        for i, value in zip(kept, scored):
            values[i] = value
        return values


def score_variants(
    variants: Sequence[str],
    owners: Sequence[int],
    texts: Sequence[str],
    encoder: TextEncoder,
    score: TextScore,
) -> list[float]:
    """Score of each altered text; minus infinity for one too long to encode or equal to its original.

    Equal means the same tokens: another case or spacing is no attack on an encoder that does not see it.

    Args:
        variants, owners: M altered texts and the index of each one's original among ``texts``.
    """
    values = [-torch.inf] * len(variants)
    original_ids, ids = encoder.tokenize(texts), encoder.tokenize(variants) if variants else []
    scored = [
        i
        for i, owner in enumerate(owners)
        if len(ids[i]) <= encoder.context and ids[i] != original_ids[owner]
    ]
    if scored:
        embeddings = encoder.encode_ids([ids[i] for i in scored])
        index = torch.tensor([owners[i] for i in scored], device=embeddings.device)
        for i, value in zip(scored, score(embeddings, index).tolist()):
            values[i] = value
    return values


@dataclass(kw_only=True)
class ImportanceAttack(WordAttack):
    """Words in the order of their importance: the score once the word is replaced by ``[UNK]``.

    Candidates do not depend on the attacked model; importance and scores do, and take one call of the encoder
    each.
    """

    _source: Callable[[list[Sentence], torch.device], list[Candidates]] | None = field(
        init=False, default=None, repr=False, compare=False
    )

    def load(self) -> Callable[[list[Sentence], torch.device], list[Candidates]]:
        """The source of candidates; called once."""
        raise NotImplementedError

    def prepare(self) -> None:
        if self._source is None:
            self._source = self.load()

    def propose(
        self, sentences: list[Sentence], clean: Tensor, encoder: TextEncoder, score: TextScore
    ) -> list[list[Proposal]]:
        self.prepare()
        proposals = [
            [Proposal(word, options) for word, options in enumerate(candidates) if options]
            for candidates in self._source(sentences, encoder.device)
        ]
        # Words without candidates are never tried, and a lone word needs no rank.
        ranked = [(row, p.word) for row, words in enumerate(proposals) if len(words) > 1 for p in words]
        masked = [sentences[row].replace({word: UNKNOWN}) for row, word in ranked]
        owners, texts = [row for row, _ in ranked], [sentence.text for sentence in sentences]
        importance = dict(zip(ranked, score_variants(masked, owners, texts, encoder, score)))
        for row, words in enumerate(proposals):
            if len(words) > 1:
                words.sort(key=lambda p, row=row: importance[row, p.word], reverse=True)
        return proposals


@TEXT_ATTACKS.register
@dataclass(kw_only=True)
class BertAttack(ImportanceAttack):
    """MMCoA's text attack (2404.19287), corrected (OC-18): substitutes come from a masked language model.

    The masked LM is loaded by `prepare` or the first attack and kept, and so are a caption's candidates.

    Args:
        num_words, num_candidates, semantic_filter, min_similarity: see `WordAttack`.
        model_name: folder or Hub id of any `AutoModelForMaskedLM`.
        threshold: least probability of a substitute for a word of one token; None keeps all.
        max_tokens: of the masked LM, special tokens included; words beyond are not attacked.
        official_quirks: the code as published: the substitutes of a word are those of the token *before*
            it (the start token is forgotten), ``threshold`` is a raw logit, 0.3 when None, words keep
            their punctuation, and a combination of tokens need not make one word.

    Raises:
        OSError: when it is to be loaded, the masked LM is not to be had.
    """

    name: ClassVar[str] = "bert"
    model_name: str = "google-bert/bert-base-uncased"
    threshold: float | None = None
    max_tokens: int = 30
    official_quirks: bool = False

    def __post_init__(self):
        super().__post_init__()
        check_flag(self, "official_quirks")
        check_counts(self, "max_tokens")
        if self.max_tokens < 3:
            raise ValueError(f"max_tokens={self.max_tokens} leaves no room for a word: choose at least 3")
        if self.threshold is not None:  # a probability; as published a logit
            bound = math.inf if self.official_quirks else 1
            check_between(self, "threshold", -bound if self.official_quirks else 0, bound)

    def parse(self, text: str) -> Sentence:
        return Sentence.parse(text, keep_punctuation=self.official_quirks)

    def load(self) -> MaskedLM:
        return MaskedLM(
            self.model_name, self.num_candidates, self.threshold, self.max_tokens, self.official_quirks
        )


@TEXT_ATTACKS.register
@dataclass(kw_only=True)
class SynonymAttack(ImportanceAttack):
    """Substitutes are the word's WordNet synonyms, over all its senses; no language model is needed.

    Args:
        num_words, num_candidates, semantic_filter, min_similarity: see `WordAttack`.
        wordnet_path: see `hierarchy.WordNet`; None looks where that does.

    Raises:
        FileNotFoundError, ImportError: when it is to be loaded, WordNet or nltk is missing.
    """

    name: ClassVar[str] = "synonym"
    wordnet_path: str | None = None

    def load(self) -> Synonyms:
        return Synonyms(self.wordnet_path, self.num_candidates)
