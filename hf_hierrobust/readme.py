"""A README.md that is shared: our card between two marks, and what its owner wrote around it.

Both keep what is theirs. Writing the card again replaces only what stands between the marks; front matter is
one mapping, in which the entries that a card measures are ours and all others stay the owner's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from .files import FileFormatError, parse_yaml

BEGIN = "<!-- hf_hierrobust: begin of the card; what stands around it is kept -->"
END = "<!-- hf_hierrobust: end of the card -->"
MEASURED = ("model-index", "metrics")
"""Front matter that states what a card measured: it is replaced with the card."""
STATED = (*MEASURED, "library_name", "pipeline_tag", "base_model", "datasets")
"""Front matter that goes when the card goes."""
MAX_CARD_BYTES = 4 << 20
LISTS = ("tags", "datasets")
"""Front matter to which both sides add entries."""

_HEADER = re.compile(r"\A\s*---[ \t]*\r?\n(?P<yaml>.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
# To the last end mark: text inside a card cannot end it.
_CARD = re.compile(rf"{re.escape(BEGIN)}.*{re.escape(END)}\n?", re.DOTALL)


def read_card(path: str | Path) -> str:
    """A README as text, whoever wrote it; of an endless one the first `MAX_CARD_BYTES`."""
    with Path(path).open("rb") as stream:
        return stream.read(MAX_CARD_BYTES).decode("utf-8", errors="replace")


def split_header(text: str) -> tuple[dict[str, Any], str]:
    """Front matter and body; front matter that is no mapping counts as body, so that nothing is lost."""
    match = _HEADER.match(text)
    if match is None:
        return {}, text
    try:
        header = parse_yaml(match["yaml"], "README.md")
    except FileFormatError:
        return {}, text
    if header is None:
        return {}, text[match.end() :]
    return (header, text[match.end() :]) if isinstance(header, dict) else ({}, text)


def own_text(text: str) -> str:
    """What the README's owner wrote: the body without card and front matter."""
    return _CARD.sub("", split_header(text)[1]).strip()


def merge(card: str, other: str | None) -> str:
    """The card, and around it what another README says of its own.

    Args:
        card: front matter, then a body with `BEGIN` and `END`, perhaps with text of the owner around it.
        other: the README that stood there before, with an older card, another one's, or none.

    Returns:
        The other text with our card in the place of its old one, or above it where it had none.
    """
    header, body = split_header(card)
    if other is None or not other.strip():
        return _joined(header, body)
    old_header, old_body = split_header(other)
    own, old_own = own_text(card), own_text(other)
    if _CARD.search(old_body) and (not own or own == old_own):
        ours = _CARD.search(body)
        body = _CARD.sub(lambda _: ours.group().rstrip("\n") + "\n", old_body) if ours else body
    elif old_own and old_own not in own:
        body = f"{body.rstrip()}\n\n{old_own}\n"
    if _CARD.search(old_body):
        old_header = {key: value for key, value in old_header.items() if key not in MEASURED}
    return _joined(_merged_headers(header, old_header), body)


def without_card(text: str, tags: Iterable[str] = ()) -> str:
    """The README without our card and what its front matter measured; "" where nothing else stands in it.

    A README without our card stays as it is.

    Args:
        tags: that go with the card.
    """
    if BEGIN not in text:
        return text
    header, _ = split_header(text)
    kept = {key: value for key, value in header.items() if key not in STATED}
    kept["tags"] = [tag for tag in _as_list(kept.get("tags")) if tag not in set(tags)]
    kept = {key: value for key, value in kept.items() if value != []}
    own = own_text(text)
    return _joined(kept, own + "\n") if own else ""


def with_tags(text: str, tags: Sequence[str]) -> str:
    """The README with further tags in its front matter."""
    header, body = split_header(text)
    return _joined(_merged_headers(header, {"tags": tags} if tags else {}), body)


def _merged_headers(ours: dict, other: dict) -> dict:
    merged = ours | {key: value for key, value in other.items() if key not in ours}
    for key in LISTS:
        entries = [*_as_list(ours.get(key)), *_as_list(other.get(key))]
        if entries:
            merged[key] = list(dict.fromkeys(map(str, entries)))
    return merged


def _as_list(value: object) -> list:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def _joined(header: dict, body: str) -> str:
    body = body.lstrip("\n")
    if not header:
        return body
    dumped = yaml.safe_dump(header, sort_keys=False, allow_unicode=True, width=float("inf"))
    return f"---\n{dumped}---\n\n{body}"
