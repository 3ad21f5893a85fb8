"""Text on its way into Markdown: nothing in it can become a heading, a link, HTML or the end of a block.

Names, sources, licences and templates come from files of other people. They are escaped here, where text
leaves; readers see them as they were written.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Sequence
from urllib.parse import quote

# Backslash, code, emphasis, strike-through, formula, link, HTML, entity and table; GFM's and the Hub's.
_ACTIVE = re.compile(r"[\\`*~$\[\]<>&|]|(?<![^\W_])_|_(?![^\W_])")
_LINE_START = re.compile(r"^([#+=:-]|\d+(?=[.)](?:\s|$)))")
# Controls, line and paragraph separators, byte order mark, and what turns the reading direction round.
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")


class Markdown(str):
    """Text that is Markdown already; everything else is escaped before it is written."""

    __slots__ = ()


def plain(value: object) -> str:
    """One line of visible characters; controls, line breaks and runs of blanks become one blank."""
    return " ".join(_INVISIBLE.sub(" ", str(value)).split())


def text(value: object) -> Markdown:
    """Inline text, also of a table cell or the caption of a link: it shows as it is and formats nothing."""
    if isinstance(value, Markdown):
        return value
    escaped = _ACTIVE.sub(lambda match: "\\" + match.group(), plain(value))
    # `1.` escapes its dot, everything else that opens a block its first character.
    return Markdown(_LINE_START.sub(lambda m: f"{m[1]}\\" if m[1].isdigit() else "\\" + m[1], escaped))


def code(value: object, *, table: bool = False) -> Markdown:
    """Inline code, fenced by more backticks than it holds.

    Args:
        table: the code stands in a table cell, where a pipe needs a backslash even inside code.
    """
    shown = plain(value)
    shown = shown.replace("|", r"\|") if table else shown
    if not shown:
        return Markdown("")
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    pad = " " if shown[0] == "`" or shown[-1] == "`" else ""
    return Markdown(f"{fence}{pad}{shown}{pad}{fence}")


def block(value: object, language: str = "") -> Markdown:
    """A code block of several lines, fenced by more backticks than it holds."""
    lines = [_INVISIBLE.sub(" ", line.replace("\t", "    ")) for line in str(value).splitlines()]
    shown = "\n".join(lines).strip("\n")
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", shown)), default=0))
    return Markdown(f"{fence}{language}\n{shown}\n{fence}")


def literal(value: str) -> Markdown:
    """A Python string literal on one line, whatever quotes and breaks the text has."""
    quoted = json.dumps(value, ensure_ascii=False)
    return Markdown(_INVISIBLE.sub(lambda m: "".join(f"\\u{ord(c):04x}" for c in m.group()), quoted))


def url(path: str) -> Markdown:
    """A relative path as the target of a link."""
    return Markdown(quote(path, safe="/"))


def table(head: list[str], rows: Iterable[Sequence[object]], right: int = 0) -> Markdown:
    """A table; cells that are not `Markdown` are escaped, the last ``right`` columns stand at the right."""
    rule = ["---"] * (len(head) - right) + ["---:"] * right
    lines = [[text(cell) for cell in row] for row in [head, *rows]]
    return Markdown("\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]]))


def folded(summary: str, content: Markdown) -> Markdown:
    """Content behind one line that opens it."""
    return Markdown(f"<details><summary>{html.escape(plain(summary))}</summary>\n\n{content}\n\n</details>")
