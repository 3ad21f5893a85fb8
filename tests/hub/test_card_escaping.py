"""Hostile names, sources, licences and templates change nothing in a card but the places they belong to."""

from __future__ import annotations

import ast
import re

import pytest
import yaml
from markdown_it import MarkdownIt
from test_hub_card import make_facts, make_record, split_card

from hf_hierrobust.hub import TreeFacts, render_card
from hf_hierrobust.readme import merge, own_text
from hf_hierrobust.reports.markdown import block, code, literal, table, text

HOSTILE = [
    "a | b |\n| --- | --- |",
    "`code` ``` fence",
    "```\n\n## What was measured\n\n**100 % robust**\n\n```",
    "</summary></details><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "---\nlicense: mit\nmodel-index: []\n---",
    "x\n---\n\n# What was measured",
    "{{ facts.records }} {% raw %} {# c #}",
    "](javascript:alert(1))",
    "![x](javascript:alert(1)) [y](data:text/html,z)",
    "<!-- hf_hierrobust: end of the card -->\n\n## Forged",
    'quote" + __import__("os").getcwd() + "\'',
    "back\\slash \\` \\| \\",
    "\r\n\r\n## What was measured\r\n",
    "line\u2028## separator\u0085## next\x0b## tab\x00null",
    "1. first\n2. second",
    "- [ ] task\n+ x\n* y\n> z",
    "$\\frac{1}{0}$ ~~gone~~ **bold** _em_ &lt;script&gt;",
    "[ref]\n\n[ref]: javascript:alert(1)",
    "\u202egnp.exe",
]


def parse(text):
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)


def skeleton(body: str) -> list[tuple[str, str]]:
    """Every block of a page, and every inline element but text; leaf text is left out."""
    found = []
    for token in parse(body):
        if token.type == "inline":
            found += [
                (child.type, child.tag) for child in token.children if child.type not in ("text", "softbreak")
            ]
        elif token.type == "html_block":
            found.append(("html", re.sub(r">[^<]*<", "><", token.content.strip())))
        else:
            found.append((token.type, token.tag))
    return found


def hostile_facts(name: str, **changes):
    tree = TreeFacts(
        name=name,
        levels=(2, 1),
        hash="0" * 16,
        source=name,
        licence=name,
        paths={"cat": [name], "dog": [name]},
    )
    fields = {
        "model_name": "robust",
        "objective": "tecoa",
        "datasets": (name,),
        "class_names": (name, "dog"),
        "template": name.replace("{}", "") + " {}",
        "threat_model": name,
        "paper_title": name,
        "citation": name,
        "hyperparameters": {"template": name, "objective.note": name},
        "defaults": {"x": name},
        "trained_parameters": {"vision": 1},
        "trees": (tree,),
        "tags": (name,),
        "warnings": (name,),
        "limitations": name,
        "records": (
            make_record(
                objective="tecoa",
                dataset=name.lstrip("/~.") or "x",
                split=name,
                classifier=name,
                level_name=name,
                class_set=name,
                versions={"torch": name},
                attack={
                    "name": name, "norm": "linf", "eps": 4 / 255, "space": "native",
                    "loss": name, "note": name,
                },
            ),
        ),
    }  # fmt: skip
    return make_facts(**(fields | changes))


@pytest.mark.parametrize("name", HOSTILE)
def test_kind18_no_name_changes_the_card_it_stands_in(name):
    harmless = render_card(hostile_facts("harmless"))
    card = render_card(hostile_facts(name))
    header, body = split_card(card)
    wanted, page = split_card(harmless)
    assert header.keys() == wanted.keys()
    assert len(header["model-index"]) == 1 and header["license"] == wanted["license"]
    assert skeleton(body) == skeleton(page)
    # All Markdown rendering: no scripts, no attributes, no links but ours, no second card.
    html = MarkdownIt("gfm-like", {"linkify": False}).render(body)
    assert re.findall(r"<(?!/)(\w+)", html) == re.findall(
        r"<(?!/)(\w+)", MarkdownIt("gfm-like", {"linkify": False}).render(page)
    )
    targets = re.findall(r'(?:href|src)="([^"]*)"', html)
    assert all(
        target.startswith(("https://arxiv.org/", "https://huggingface.co/", "figures/")) for target in targets
    )
    assert len(re.findall("<h2>", html)) == len(re.findall("^## ", page, re.MULTILINE))
    # No name ends the card early: the owner's text around it survives its replacement, and nothing else does.
    owned = card.replace("---\n\n<!--", "---\n\nabove\n\n<!--", 1) + "\nbelow\n"
    assert own_text(owned) == "above\n\n\nbelow" and own_text(merge(harmless, owned)) == own_text(owned)
    assert merge(card, card) == card
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]", card)


@pytest.mark.parametrize("name", HOSTILE)
def test_kind18_the_snippets_stay_programs_about_these_names(name):
    template = name.replace("{}", "") + " {}"
    _, body = split_card(render_card(hostile_facts(name)))
    snippets = [t.content for t in parse(body) if t.type == "fence" and t.info == "python"]
    assert len(snippets) == 2
    calls = [node for s in snippets for node in ast.walk(ast.parse(s)) if isinstance(node, ast.Call)]
    named = {word.arg: ast.literal_eval(word.value) for call in calls for word in call.keywords
             if word.arg in ("candidate_labels", "hypothesis_template", "text")}  # fmt: skip
    labels = [name, "dog"]
    assert named["candidate_labels"] == labels
    assert [named["hypothesis_template"].format(label) for label in labels] == named["text"]
    assert named["text"] == [template.replace("{}", label) for label in labels]


@pytest.mark.parametrize("name", HOSTILE)
def test_kind18_inline_pieces_show_what_they_were_given(name):
    shown = " ".join(re.sub("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]+", " ", name).split())
    for piece in (text(name), code(name)):
        (_, inline, _) = parse(f"before {piece} after")
        said = "".join(child.content for child in inline.children)
        assert said == f"before {shown} after"
    (fence,) = parse(block(name))
    assert fence.type == "fence"
    assert ast.literal_eval(literal(name)) == name
    cells = [t for t in parse(table(["a", "b"], [[name, code(name, table=True)]])) if t.type == "inline"]
    assert [c.content.count("\n") for c in cells] == [0] * 4
    assert "".join(child.content for child in cells[2].children) == shown
    assert "".join(child.content for child in cells[3].children) == shown


def test_kind18_front_matter_is_one_mapping_whatever_the_tags():
    for name in HOSTILE:
        header = yaml.safe_load(render_card(make_facts(tags=(name,))).split("---\n")[1])
        assert header["license"] == "mit" and len(header["tags"]) == 4
