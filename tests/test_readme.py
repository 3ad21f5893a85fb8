"""The README is short, and its Python is run as it stands, on tiny data in place of the Hub's."""

from __future__ import annotations

import re

from doc_pages import PAGES, README, fenced, run_blocks, world  # noqa: F401


def test_the_readme_is_read_in_one_go():
    assert len(README.read_text().splitlines()) <= 180


def test_each_of_the_five_things_takes_at_most_eight_lines():
    for _, block in fenced(README, "python"):
        lines = [line for line in block.splitlines() if line.strip()]
        assert len(lines) <= 8, block


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_snippets_run_as_they_stand(world):  # noqa: F811
    names = run_blocks(README, world)
    assert {record.attack["name"] for record in names["records"]} == {"noise"}
    assert names["result"].robust_correct.shape == (4,)
