"""Cards rendered in headless Chromium: hostile names leave the page as harmless ones do, and run nothing."""

from __future__ import annotations

import numpy as np
from card_page import chromium, elements, screenshot, write_page
from PIL import Image
from test_card_escaping import HOSTILE, hostile_facts

from hf_hierrobust.hub import render_card

RUN = "document.body.setAttribute('data-ran', 1)"
ACTIVE = [
    f"<script>{RUN}</script>",
    f'<img src=x onerror="{RUN}">',
    f'</code></td></table><svg onload="{RUN}">',
    f'"><iframe srcdoc="<script>parent.{RUN}</script>">',
    "</details></article></body><style>* {display: none}</style>",
    "![x](x.png#](javascript:alert(1)) <a href='javascript:alert(1)'>x</a>",
]


def test_hostile_names_leave_the_rendered_page_intact(tmp_path):
    cards = [render_card(hostile_facts(name)) for name in ("harmless", *HOSTILE, *ACTIVE)]
    page = write_page(tmp_path / "card.html", *cards)
    found = elements(chromium(page, "--dump-dom", "--virtual-time-budget=2000"))
    assert "data-ran" not in found.body
    harmless, *hostile = found.articles
    assert len(hostile) == len(cards) - 1 and len(harmless) > 50
    for name, seen in zip((*HOSTILE, *ACTIVE), hostile):
        assert seen == harmless, name


def test_a_card_is_a_page_that_fits_its_width(tmp_path):
    page = write_page(tmp_path / "card.html", render_card(hostile_facts(ACTIVE[1] + " " + "a | `b` | " * 30)))
    for width in (1000, 400):
        shot = np.asarray(Image.open(screenshot(page, tmp_path / f"{width}.png", width)).convert("L"))
        assert shot.shape == (4000, width)
        inked = (shot < 128).any(axis=1)
        assert inked[:400].sum() > 100, "a heading and text"
        assert (shot[:, -8:] > 250).mean() > 0.9, "nothing but the margin at the right edge"
