"""The documentation builds without a warning; pages are near; every public name is in the reference."""

from __future__ import annotations

import io
import re

import pytest
from doc_pages import DOCS, PAGES

import hf_hierrobust

HOWTOS = sorted((DOCS / "howto").glob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The application after a build that writes no pages, and its warnings."""
    pytest.importorskip("sphinx", reason="the site needs sphinx: pip install '.[docs]'")
    pytest.importorskip("myst_parser", reason="the site needs myst-parser: pip install '.[docs]'")
    pytest.importorskip("furo", reason="the site needs the theme furo: pip install '.[docs]'")
    from sphinx.application import Sphinx

    out, warnings = tmp_path_factory.mktemp("site"), io.StringIO()
    # Preserved defaults are written into the functions' signatures, which the package reads at run time.
    apart = {"autodoc_preserve_defaults": False}
    app = Sphinx(DOCS, DOCS, out, out / "doctrees", "dummy", apart, status=None, warning=warnings)
    app.build()
    return app, warnings.getvalue()


@pytest.mark.slow
def test_the_site_builds_without_a_warning(site):
    app, warnings = site
    assert warnings == ""
    assert app.statuscode == 0


def test_every_public_name_is_in_the_reference(site):
    documented = site[0].env.domaindata["py"]["objects"]
    missing = [name for name in hf_hierrobust.__all__ if f"hf_hierrobust.{name}" not in documented]
    assert missing == ["__version__"]


def links(page) -> set:
    targets = re.findall(r"(?<!!)\[[^\]]+\]\((?!https?:)([^)#\s]+)", page.read_text())
    return {(page.parent / target).resolve() for target in targets}


def test_every_page_and_the_five_howtos_lie_within_two_clicks():
    first = links(DOCS / "index.md")
    assert len(HOWTOS) == 5
    assert set(HOWTOS) <= first
    second = set().union(*(links(page) for page in first if page.suffix == ".md"))
    pages = {page for page in PAGES if page.is_relative_to(DOCS)}
    assert pages - {DOCS / "index.md"} <= first | second


@pytest.mark.parametrize("page", sorted((DOCS / "concepts").glob("*.md")), ids=lambda page: page.stem)
def test_a_concept_page_has_its_equation_and_a_figure_that_is_put_in_words(page):
    text = page.read_text()
    assert "$$" in text
    figures = re.findall(r"!\[([^\n]+)\]\(\.\./figures/(\w+)\.svg\)", text)
    if page.stem == "notation":
        assert not figures
        return
    [(words, name)] = figures
    assert name == page.stem
    assert len(words) > 30
    drawing = (DOCS / "figures" / f"{name}.svg").read_text()
    assert 'width="518.4pt"' in drawing  # 7.2 inches: its text is as large on every page
