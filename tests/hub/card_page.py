"""A card as the page that readers see, in headless Chromium."""

from __future__ import annotations

import html
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from hf_hierrobust.readme import split_header

STYLE = """
body { font: 16px/1.5 "DejaVu Sans", sans-serif; color: #1f2328 }
body { max-width: 860px; margin: 24px auto; padding: 0 16px }
h1, h2 { border-bottom: 1px solid #d1d9e0; padding-bottom: .3em }
table { border-collapse: collapse; display: block; overflow-x: auto }
td, th { border: 1px solid #d1d9e0; padding: 6px 13px }
pre { background: #f6f8fa; padding: 16px; overflow-x: auto } code { background: #f6f8fa; font-size: 85% }
blockquote { border-left: .25em solid #d1d9e0; margin: 0; padding: 0 1em; color: #59636e }
img { max-width: 100% }
"""


def article(card: str) -> str:
    """The card's body as HTML, its own HTML passed through: what sanitisers would take out stays in."""
    return f"<article>{MarkdownIt('gfm-like', {'linkify': False}).render(split_header(card)[1])}</article>"


def write_page(path: Path, *cards: str) -> Path:
    """A page of one or more cards, each an ``<article>``."""
    body = "\n".join(map(article, cards))
    path.write_text(
        f"<!doctype html><meta charset=utf-8><title>{html.escape(path.stem)}</title><style>{STYLE}</style>"
        f"<body>{body}</body>",
        encoding="utf-8",
    )
    return path


def browser() -> str:
    """Path of Chromium; the test is skipped where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if (found := shutil.which(name)) is not None:
            return found
    pytest.skip("no Chromium here: apt-get install chromium")


def chromium(page: Path, *options: str) -> str:
    """What headless Chromium writes to stdout."""
    profile = page.parent / "profile"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
    done = subprocess.run(
        [browser(), *flags, *options, page.as_uri()], capture_output=True, text=True, timeout=240, check=True
    )
    return done.stdout


def screenshot(page: Path, png: Path, width: int = 1000, height: int = 4000) -> Path:
    chromium(page, f"--screenshot={png}", f"--window-size={width},{height}")
    return png


class Elements(HTMLParser):
    """Elements of each article with the attributes that can act, in order; text is left out."""

    def __init__(self):
        super().__init__()
        self.articles: list[list[tuple]] = []
        self.body: dict[str, str | None] = {}

    def handle_starttag(self, tag, attrs):
        if tag == "body":
            self.body = dict(attrs)
        if tag == "article":
            self.articles.append([])
        elif self.articles:
            self.articles[-1].append((tag, tuple(name for name, _ in attrs if name != "alt")))


def elements(dom: str) -> Elements:
    parser = Elements()
    parser.feed(dom)
    return parser
