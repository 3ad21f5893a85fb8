"""Where substitutes for words come from: a masked language model, or WordNet."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...hierarchy import WordNet
from .sentence import STOP_WORDS, Sentence

MAX_PIECES, CHOICES_PER_PIECE, MAX_COMBINATIONS = 12, 4, 24
"""Bounds on the substitutes of a word of several tokens (MMCoA's code)."""
PUBLISHED_THRESHOLD = 0.3
_CACHE_SIZE = 100_000
_BATCH_SIZE = 64

Candidates = list[list[str]]
"""Substitutes of each word of one sentence; none for stop words."""


class MaskedLM:
    """Substitutes that a masked language model proposes for every word of a sentence, kept per sentence.

    The model sees the sentence unmasked. A word of one token gets the ``num_candidates`` likeliest tokens in
    its place; a word of several gets the first 24 combinations of the 4 likeliest tokens in each place. The
    published code then sorts these by the masked LM's perplexity, which does not change which of them scores
    highest, and is left out.

    Args:
        name: folder or Hub id of a model that `AutoModelForMaskedLM` loads.
        num_candidates: k.
        threshold: least probability of a substitute of a one-token word.
        max_tokens: the sentence is cut to so many tokens, special ones included; words beyond stay.
        official_quirks: MMCoA's code as published, see `BertAttack`.

    Raises:
        OSError: no such model here.
        ValueError: its tokenizer does not tell where in the text a token stands.
    """

    def __init__(
        self, name: str, num_candidates: int, threshold: float | None, max_tokens: int, official_quirks: bool
    ):
        from transformers import AutoModelForMaskedLM, AutoTokenizer

        try:
            self.tokenizer = AutoTokenizer.from_pretrained(name)
            self.model = AutoModelForMaskedLM.from_pretrained(name, dtype=torch.float32)
        except (OSError, ValueError) as error:  # ValueError: a model of another kind
            raise OSError(
                f"the masked language model model_name={name!r} cannot be loaded ({error}). Offline, give "
                "the folder of one, or attack with 'gradient' or 'synonym', which need none"
            ) from error
        if not self.tokenizer.is_fast:
            raise ValueError(
                f"the tokenizer of model_name={name!r} gives no offsets: use a model with a fast tokenizer"
            )
        self.model.eval().requires_grad_(False)
        if official_quirks and threshold is None:
            threshold = PUBLISHED_THRESHOLD
        self.num_candidates, self.threshold = num_candidates, threshold
        self.max_tokens, self.official_quirks = max_tokens, official_quirks
        self._cache: dict[str, Candidates] = {}
        self._spelled: dict[tuple[int, ...], str | None] = {}
        self._special = set(self.tokenizer.all_special_ids)
        # Word pieces mark how a word goes on ("##"), byte-level and sentence pieces how it starts.
        backend = self.tokenizer.backend_tokenizer.model
        self._continues = getattr(backend, "continuing_subword_prefix", None)

    def __call__(self, sentences: Sequence[Sentence], device: torch.device) -> list[Candidates]:
        """Substitutes for each sentence; new sentences are run through the model in a few batches."""
        found = {s.text: self._cache[s.text] for s in sentences if s.text in self._cache}
        new = list({s.text: s for s in sentences if s.text not in found}.values())
        if new:
            self.model.to(device)
            for sentence, candidates in zip(new, self._propose(new)):
                found[sentence.text] = self._cache[sentence.text] = candidates
            while len(self._cache) > _CACHE_SIZE:
                del self._cache[next(iter(self._cache))]
        return [found[s.text] for s in sentences]

    def _propose(self, sentences: list[Sentence]) -> list[Candidates]:
        texts = [s.text for s in sentences]
        encoded = self.tokenizer(texts, return_offsets_mapping=True, truncation=False, verbose=False)
        ids = [
            row if len(row) <= self.max_tokens else [*row[: self.max_tokens - 1], row[-1]]
            for row in encoded["input_ids"]
        ]
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        result: list[Candidates] = [[]] * len(ids)
        for start in range(0, len(order), _BATCH_SIZE):
            rows = order[start : start + _BATCH_SIZE]
            values, tokens = self._predict([ids[row] for row in rows])
            for row, value, token in zip(rows, values.tolist(), tokens.tolist()):
                result[row] = self._read(sentences[row], encoded["offset_mapping"][row], value, token)
        return result

    @torch.no_grad()
    def _predict(self, ids: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Probabilities (in the published form logits) and ids (N, T, k) of the likeliest tokens."""
        padding, width = self.tokenizer.pad_token_id, max(map(len, ids))
        batch = torch.tensor([[*row, *[padding] * (width - len(row))] for row in ids])
        mask = torch.arange(width) < torch.tensor([[len(row)] for row in ids])
        device = self.model.device
        logits = self.model(input_ids=batch.to(device), attention_mask=mask.long().to(device)).logits
        values, tokens = logits.topk(min(self.num_candidates, logits.shape[-1]))
        if not self.official_quirks:
            values = (values - logits.logsumexp(-1, keepdim=True)).exp()
        return values.cpu(), tokens.cpu()

    def _read(self, sentence: Sentence, offsets, values: list, tokens: list) -> Candidates:
        result: Candidates = []
        for word, (start, end) in zip(sentence.words, sentence.spans):
            places = [i for i, (a, b) in enumerate(offsets) if a < end and b > start]
            # As published: as if there were no [CLS], so that the predictions are those of the token before.
            shift = 1 if self.official_quirks else 0
            last = (places[0] - 1 if self.official_quirks else places[-1]) if places else self.max_tokens
            if word in STOP_WORDS or last > self.max_tokens - 2:
                result.append([])
                continue
            rows = slice(places[0] - shift, places[-1] + 1 - shift)
            substitutes = self._spell_all(values[rows], tokens[rows])
            result.append([s for s in dict.fromkeys(substitutes) if self._keeps(s, word)])
        return result

    def _spell_all(self, values: list, tokens: list) -> list[str | None]:
        if len(tokens) == 1:
            enough = (v >= (-torch.inf if self.threshold is None else self.threshold) for v in values[0])
            return [self._spell((token,)) for token, _ in zip(tokens[0], itertools.takewhile(bool, enough))]
        choices = [row[:CHOICES_PER_PIECE] for row in tokens[:MAX_PIECES]]
        return list(map(self._spell, itertools.islice(itertools.product(*choices), MAX_COMBINATIONS)))

    def _spell(self, ids: tuple[int, ...]) -> str | None:
        """The word that tokens make together; None unless it is one whole word."""
        if ids not in self._spelled:
            tokens = self.tokenizer.convert_ids_to_tokens(list(ids))
            text = self.tokenizer.convert_tokens_to_string(tokens).strip()
            whole = [self._starts_word(token) for token in tokens] == [True] + [False] * (len(tokens) - 1)
            whole = whole and text.isalnum() and not self._special.intersection(ids)
            self._spelled[ids] = text if whole or self.official_quirks else None
        return self._spelled[ids]

    def _starts_word(self, token: str) -> bool:
        return not token.startswith(self._continues) if self._continues else token.startswith(("Ġ", "▁"))

    def _keeps(self, substitute: str | None, word: str) -> bool:
        if substitute is None or substitute in STOP_WORDS:
            return False
        if self.official_quirks:
            return substitute != word and "##" not in substitute
        return substitute.casefold() != word.casefold()


class Synonyms:
    """Words that share a WordNet synset with a word, in the order of WordNet's senses.

    Args:
        path: see `hierarchy.WordNet`; database files give synonyms of all parts of speech, the parquet form
            those of nouns.
        num_candidates: how many of each word.

    Raises:
        FileNotFoundError, ImportError: see `hierarchy.WordNet`.
    """

    def __init__(self, path: str | Path | None, num_candidates: int):
        self._wordnet = WordNet(path)
        self.num_candidates = num_candidates
        self._cache: dict[str, list[str]] = {}

    def __call__(self, sentences: Sequence[Sentence], device: torch.device) -> list[Candidates]:
        return [[self.of(word) for word in sentence.words] for sentence in sentences]

    def of(self, word: str) -> list[str]:
        """Synonyms of a word that are one word and no stop word."""
        if word in STOP_WORDS:
            return []
        if word not in self._cache:
            lemmas = dict.fromkeys(lemma.lower() for lemma in self._wordnet.synonyms(word))
            kept = [s for s in lemmas if s.isalpha() and s != word.lower() and s not in STOP_WORDS]
            self._cache[word] = kept[: self.num_candidates]
        return self._cache[word]
