"""A text as words that an attack may replace."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_LISTS = json.loads(Path(__file__).with_name("stop_words.json").read_text(encoding="utf-8"))
STOP_WORDS: frozenset[str] = frozenset(_LISTS["words"] + _LISTS["marks"])
"""Words that are neither replaced nor inserted; compared with case, so that "This" may be replaced."""

_WORD = re.compile(r"\w+(?:['’]\w+)*")
_BETWEEN_BLANKS = re.compile(r"\S+")


@dataclass(frozen=True)
class Sentence:
    """A text and the character spans of its words.

    Attributes:
        text: the text.
        spans: (start, end) of each word, in order.
    """

    text: str
    spans: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, text: str, keep_punctuation: bool = False) -> Sentence:
        """Find the words; punctuation around them stays in the text when they are replaced.

        Args:
            keep_punctuation: a word is whatever stands between blanks, as in MMCoA's code: "primrose,"
                then is several tokens of the masked LM.
        """
        pattern = _BETWEEN_BLANKS if keep_punctuation else _WORD
        return cls(text, tuple(match.span() for match in pattern.finditer(text)))

    @property
    def words(self) -> list[str]:
        return [self.text[start:end] for start, end in self.spans]

    def replace(self, substitutes: Mapping[int, str]) -> str:
        """The text with other words in these places."""
        text = self.text
        for word in sorted(substitutes, reverse=True):  # from the end, so that earlier spans stay right
            start, end = self.spans[word]
            text = text[:start] + substitutes[word] + text[end:]
        return text
