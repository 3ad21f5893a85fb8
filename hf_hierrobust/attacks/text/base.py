"""The frame every attack on words runs in: input checks, frozen encoder, score, result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ...classifiers.freezing import frozen
from ...naming import public_name
from ...registry import Registry
from ..base import named_functions
from .encoder import TextEncoder
from .scores import LabelFreeScore, TextScore

TEXT_ATTACKS: Registry[TextAttack] = Registry("text attack", "hf_hierrobust.attacks.text")


class TextAttackResult(NamedTuple):
    """Outcome of one attack on N texts.

    Attributes:
        texts: the attacked texts; the original where nothing raised the score.
        changed: (N,) bool.
        scores: (N,) what the attack reached, never below the original's score.
    """

    texts: list[str]
    changed: Tensor
    scores: Tensor


def check_texts(texts: Sequence[str], name: str = "texts") -> list[str]:
    """Refuse anything but a non-empty sequence of strings.

    Raises:
        TypeError: one string, or an element that is none.
        ValueError: no text.
    """
    if isinstance(texts, str):
        raise TypeError(f"{name} is one string, {texts!r}: pass a list of texts")
    texts = list(texts)
    if not texts:
        raise ValueError(f"{name} is empty: there is no text to attack")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(
                f"{name}[{row}] is a {type(text).__name__}, {text!r}: every text must be a string"
            )
    return texts


@dataclass(kw_only=True)
class TextAttack:
    """Base of all attacks on words: validates, freezes the encoder, runs, reports.

    Subclasses are dataclasses with a ``name`` and implement `run`.
    """

    name: ClassVar[str] = ""

    def __call__(
        self,
        texts: Sequence[str],
        encoder: TextEncoder,
        *,
        score: TextScore | None = None,
        generator: torch.Generator | None = None,
    ) -> TextAttackResult:
        """Attack captions or class prompts.

        Args:
            texts: N captions or prompts.
            encoder: the text side of the attacked model, as it is now.
            score: what to maximise, (embeddings (M, D), index (M,) of the original) -> (M,); None is
                MMCoA's label-free distance from the original, under which equal texts are attacked once.
            generator: source of random choices; the attacks on words of this package make none.

        Raises:
            TypeError, ValueError: see `check_texts`; an attack without a name of its own; a text longer than
                the encoder's context; a score of another shape than one value per text.
        """
        TEXT_ATTACKS.check(self)
        originals = check_texts(texts)
        rows = list(range(len(originals)))
        if score is None:
            place: dict[str, int] = {}
            rows = [place.setdefault(text, len(place)) for text in originals]
            originals = list(place)
        with frozen(encoder):
            embeddings = encoder(originals)
            score = _checked(LabelFreeScore(embeddings) if score is None else score)
            clean = score(embeddings, torch.arange(len(originals), device=embeddings.device)).detach()
            attacked, scores = self.run(originals, clean, encoder, score, generator)
        changed = [attacked[row] != originals[row] for row in rows]
        return TextAttackResult(
            [attacked[row] for row in rows],
            torch.tensor(changed, device=clean.device),
            scores[torch.tensor(rows, device=clean.device)],
        )

    def prepare(self) -> None:
        """Load what the attack needs besides the encoder, so that a missing model shows before a long run."""

    def run(
        self,
        texts: list[str],
        clean: Tensor,
        encoder: TextEncoder,
        score: TextScore,
        generator: torch.Generator | None,
    ) -> tuple[list[str], Tensor]:
        """Attacked texts and their scores (N,), given the originals' scores ``clean`` (N,)."""
        raise NotImplementedError

    def describe(self) -> dict:
        """The attack's constants, for records and cards: of a local path only the last part."""
        constants = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        for name, value in constants.items():
            if isinstance(value, (str, Path)):
                constants[name] = public_name(str(value))
        return named_functions({"name": self.name, **constants})


def _checked(score: TextScore) -> TextScore:
    def checked(embeddings: Tensor, index: Tensor) -> Tensor:
        values = score(embeddings, index)
        if values.shape != index.shape:
            raise ValueError(
                f"score returned shape {tuple(values.shape)} for {len(index)} texts: expected "
                f"({len(index)},), one value per text"
            )
        return values

    return checked
