"""Which WordNet noun a class name means, where it could mean several."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .wordnet import WordNet

__all__ = ["choose_senses"]

logger = logging.getLogger(__name__)

Embed = Callable[[Sequence[str]], Tensor]
"""N names, as they stand in a prompt, to their text embeddings (N, D)."""


def choose_senses(class_names: Sequence[str], wordnet: WordNet, embed: Embed | None = None) -> dict[str, str]:
    """wnid of each class whose name has several noun senses, by text embeddings; each choice is logged.

    A sense is written as the class name with its gloss ("crane, lifting device"; the parent's name where
    WordNet's file has no glosses). Taken is the sense whose embedding lies nearest to the class name's own
    together with the mean of all classes', so that a crane among birds is a bird.

    Args:
        class_names: K names.
        embed: without it nothing is chosen, and `WordNet.find` decides.

    Raises:
        TreeError: a name that is no noun.
    """
    found = {name: wordnet.senses(name) for name in class_names}
    several = {name: senses for name, senses in found.items() if len(senses) > 1}
    if embed is None or not several:
        return {}
    glosses = {wnid: _gloss(wordnet, wnid) for senses in several.values() for wnid in senses}
    texts = [f"{_shown(name)}, {glosses[wnid]}" for name, senses in several.items() for wnid in senses]
    with torch.no_grad():
        own = torch.nn.functional.normalize(embed([_shown(name) for name in class_names]).float(), dim=-1)
        described = torch.nn.functional.normalize(embed(texts).float(), dim=-1)
    together = own.mean(0)
    chosen, start = {}, 0
    for name, senses in several.items():
        towards = own[list(class_names).index(name)] + together
        scores = described[start : start + len(senses)] @ towards
        start += len(senses)
        chosen[name] = senses[int(scores.argmax())]
        others = ", ".join(f"{wnid} ({glosses[wnid]})" for wnid in senses if wnid != chosen[name])
        logger.warning(
            f"tree 'wordnet': class {name!r} is taken for {chosen[name]} ({glosses[chosen[name]]}), not for "
            f"{others}; a class-set file with wnids decides otherwise"
        )
    return chosen


def _shown(name: str) -> str:
    return " ".join(name.replace("_", " ").split())


def _gloss(wordnet: WordNet, wnid: str, words: int = 12) -> str:
    """The first words of a synset's definition, else its parent's first name."""
    if definition := wordnet.definition(wnid):
        return " ".join(definition.split()[:words])
    path = wordnet.path(wnid)
    return wordnet.lemmas(path[-2])[0] if len(path) > 1 else wnid
