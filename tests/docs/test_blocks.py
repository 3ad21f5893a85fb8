"""Every Python block of the documentation runs, or says why not; commands take the options shown."""

from __future__ import annotations

import re
import shlex

import pytest
from doc_pages import DOCS, NOT_RUN, PAGES, fenced, run_blocks, world  # noqa: F401

from hf_hierrobust.cli.parser import PARSED, parser_of
from hf_hierrobust.cli.values import read_values

WITH_CODE = [page for page in PAGES if page.parent != DOCS.parent and fenced(page, "python")]
STARTS = {  # what a line that runs one of our commands begins with
    r"(?:torchrun \S+ \S+ |accelerate launch (?:--\S+ (?:\d+ )?)*)?(?:-m )?hf[-_]hierrobust (\w+) ": None,
    r"(?:torchrun \S+ \S+ |accelerate launch (?:--\S+ (?:\d+ )?)*)examples/run_\w+\.py ": "train",
}


def test_what_is_not_run_says_why():
    marks = [(page.name, mark) for page in PAGES for mark, _ in fenced(page, "python") if mark]
    assert not [place for place in marks if not NOT_RUN.fullmatch(place[1])]


def test_no_block_escapes_by_its_language():
    known = {"python", "bash", "json", "yaml", "math", "bibtex", ""}
    for page in PAGES:
        languages = set(re.findall(r"^ *```([\w-]+|\{\w+\})", page.read_text(), flags=re.M))
        assert languages - {"{toctree}", "{include}"} <= known, f"{page.name}: {languages}"


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_python_runs_as_it_stands(page, world):  # noqa: F811
    run_blocks(page, world)


def commands() -> list[tuple[str, str, str]]:
    """(page, command, its words) of every line in a bash block that runs one of our commands."""
    found = []
    for page in PAGES:
        for _, block in fenced(page, "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                for start, command in STARTS.items():
                    if match := re.match(start, line):
                        found.append((page.name, command or match[1], line[match.end() :]))
    return found


def test_commands_are_found():
    assert {command for _, command, _ in commands()} == {"train", "evaluate", *PARSED}


@pytest.mark.parametrize("page, command, words", commands())
def test_commands_take_these_options(page, command, words, monkeypatch):
    monkeypatch.chdir(DOCS.parent)  # configs are named from there
    argv = [word for word in shlex.split(words, comments=True) if word != "…"]
    if command in PARSED:
        if "--list" not in argv:
            parser_of(command).read(argv)
    else:
        read_values(command, argv)
