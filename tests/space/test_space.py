"""The Space in a browser: load, choose a picture, attack, and read the path that is shown."""

from __future__ import annotations

import struct
import time
import zlib

import pytest
from browser import chromium, space
from tiny_data import make_images, make_tiny_clip

from hf_hierrobust.runs.attack_image import attack_image

PATIENCE = 240
"""Seconds that a page or an answer may take on a busy machine."""
PATHS = """
const rows = document.querySelectorAll(`#${arguments[0]} tbody tr`);
return Array.from(rows, row => Array.from(row.querySelectorAll("td"), cell => cell.innerText.trim()));
"""
WATCH = """
window.progress = new Set();
window.messages = new Set();
new MutationObserver(() => {
    for (const one of document.querySelectorAll("#status .progress-level-inner"))
        window.progress.add(one.innerText);
    for (const one of document.querySelectorAll(".toast-body")) window.messages.add(one.innerText);
}).observe(document, {subtree: true, childList: true, characterData: true});
"""
TYPE = """
const [field, text] = arguments;
const prototype = field instanceof HTMLTextAreaElement ? HTMLTextAreaElement : HTMLInputElement;
Object.getOwnPropertyDescriptor(prototype.prototype, "value").set.call(field, text);
for (const kind of ["input", "change", "blur"]) field.dispatchEvent(new Event(kind, {bubbles: true}));
"""
OVERFLOWING = """
const cut = Array.from(document.querySelectorAll("#base *, #robust *, #status *, button, label"))
    .filter(one => one.scrollWidth > one.clientWidth + 1 && one.clientWidth > 0
                   && getComputedStyle(one).overflowX != "visible").map(one => one.outerHTML.slice(0, 200));
const wide = document.documentElement.scrollWidth > window.innerWidth ? ["the page"] : [];
return wide.concat(cut);
"""


class Visitor:
    """What a visitor does on the page, by CSS selectors."""

    def __init__(self, page):
        self.page = page

    def until(self, condition, what: str):
        begin = time.monotonic()
        while not (found := condition()):
            shown = self.page.find_element("tag name", "body").text
            said = self.seen("messages")
            assert time.monotonic() - begin < PATIENCE, f"no {what}, but {said}, on the page:\n{shown}"
            time.sleep(0.05)
        return found

    def one(self, selector):
        return self.until(lambda: self.page.find_elements("css selector", selector), selector)[0]

    def click(self, selector):
        self.page.execute_script("arguments[0].click()", self.one(selector))

    def type(self, selector, text):
        self.page.execute_script(TYPE, self.one(selector), text)

    def choose_tree(self, start):
        self.one("#tree input").click()
        self.one(f'[role=option][aria-label^="{start}"]').click()

    def path(self, side):
        rows = self.page.execute_script(PATHS, side)
        return [[" ".join(cell.split()) for cell in row] for row in rows]

    def seen(self, what):
        return self.page.execute_script(f"return Array.from(window.{what} || [])")

    def told(self, words):
        """Press the button and wait for a message with these words."""
        self.click("#attack")
        self.until(lambda: any(words in said for said in self.seen("messages")), f"message {words!r}")
        assert not self.path("base") and not self.path("robust")


def claim_size(png: bytes, side: int) -> bytes:
    """The PNG with another width and height in its header."""
    header = png[12:16] + struct.pack(">II", side, side) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


def expected(model, picture, **options):
    found = attack_image(model, picture, **options)
    cell = "{} {:.0f} %".format
    return [
        [
            cell(before.name, 100 * before.confidence),
            cell(("" if before.name == after.name else "→ ") + after.name, 100 * after.confidence),
        ]
        for before, after in zip(found.clean, found.attacked)
    ]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_picture_is_attacked_and_its_path_shown(tmp_path, monkeypatch):
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'hf_hierrobust[demo]'")
    # The names of a built-in tree, letter by letter, need a longer context.
    models = [make_tiny_clip(tmp_path / str(seed), seed, context=40) for seed in (0, 1)]
    (tmp_path / "pictures").mkdir()
    picture = tmp_path / "pictures" / "picture.png"
    make_images(1, size=32)[0]["image"].save(picture)
    pair = f"tiny = {models[0]} | {models[1]}"
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    with (
        chromium(390, 844) as page,
        space(monkeypatch, models=pair, pictures=str(picture.parent)) as address,
    ):
        page.get(address)
        visitor = Visitor(page)
        visitor.one("#attack")
        page.execute_script(WATCH)
        visitor.told("Choose a picture first")

        (tmp_path / "large.png").write_bytes(claim_size(picture.read_bytes(), 60_000))
        visitor.one("#picture input[type=file]").send_keys(str(tmp_path / "large.png"))
        visitor.one("#picture img")
        visitor.type("#labels textarea", "cat, dog")
        visitor.told("more pixels than the allowed")

        visitor.click(".gallery-item")  # the picture to try
        visitor.type("#labels textarea", "")
        visitor.told("type two or more different labels")
        visitor.type("#labels textarea", ", ".join(map(str, range(201))))
        visitor.told("201 labels are more than the 200")
        visitor.type("#labels textarea", f"cat, <img src=x onerror=alert(1)>{'x' * 60}")
        visitor.told("label '<img src=x onerror=a'… is longer than 60")

        # By its path from the root, in a tree.
        visitor.type("#labels textarea", "")
        visitor.choose_tree("cifar10")
        visitor.type("#eps input[type=number]", "8")
        visitor.type("#steps input[type=number]", "9")
        visitor.click("#attack")
        visitor.until(lambda: visitor.path("robust"), "path of the robust model")
        for side, model in zip(("base", "robust"), models):
            wanted = expected(model, picture, tree="cifar10", eps="8/255", num_steps=9)
            assert visitor.path(side) == wanted and len(wanted) > 1
            assert len(page.find_elements("css selector", f"#{side} .pictures img")) == 3
        progress = visitor.seen("progress")
        assert any("model: pass " in said and "%" in said for said in progress), progress
        assert page.execute_script(OVERFLOWING) == []

        # A name that would be markup is a name.
        visitor.choose_tree("no tree")
        visitor.type("#labels textarea", "cat, <img src=x onerror=alert(1)>")
        visitor.click("#attack")
        visitor.until(lambda: len(visitor.path("robust")) == 1, "path of one level")
        name = "<img src=x onerror=alert(1)>"
        wanted = expected(models[0], picture, labels=["cat", name], eps="8/255", num_steps=9)
        assert visitor.path("base") == wanted and any(name in cell for cell in wanted[0])
        assert not page.find_elements("css selector", "#base img[src=x], #robust img[src=x]")
        assert page.execute_script(OVERFLOWING) == []
