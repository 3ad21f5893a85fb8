"""The Space in a browser: load, choose a picture, attack, and read the path that is shown."""

from __future__ import annotations

import pytest
from browser import PATIENCE, chromium, space
from tiny_data import make_images, make_tiny_clip

from hf_hierrobust.runs.attack_image import attack_image

PATHS = """
const rows = document.querySelectorAll(`#${arguments[0]} tbody tr`);
return Array.from(rows, row => Array.from(row.querySelectorAll("td"), cell => cell.innerText.trim()));
"""


def expected(model, picture, **options):
    found = attack_image(model, picture, eps="4/255", num_steps=20, **options)
    cell = "{} {:.0f} %".format
    return [
        [
            cell(before.name, 100 * before.confidence),
            cell(("" if before.name == after.name else "→ ") + after.name, 100 * after.confidence),
        ]
        for before, after in zip(found.clean, found.attacked)
    ]


def test_a_picture_is_attacked_and_its_path_shown(tiny_clip_dir, tmp_path):
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'hf_hierrobust[demo]'")
    pytest.importorskip("selenium", reason="selenium is not installed")
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    other = make_tiny_clip(tmp_path / "other", seed=1)
    picture = tmp_path / "picture.png"
    make_images(1, size=32)[0]["image"].save(picture)
    environment = {"SPACE_MODELS": f"tiny = {tiny_clip_dir} | {other}"}
    with chromium(390, 844) as page, space(environment, tmp_path / "log.txt") as address:
        wait = WebDriverWait(page, PATIENCE)

        def until(condition):
            return wait.until(lambda _: condition())

        def one(selector):
            return until(lambda: page.find_elements(By.CSS_SELECTOR, selector))[0]

        page.get(address)
        one("#attack").click()
        until(lambda: "Choose a picture first" in page.find_element(By.TAG_NAME, "body").text)

        # By its path from the root, in a tree.
        one("#picture input[type=file]").send_keys(str(picture))
        one("#picture img")
        tree = one("#tree input")
        tree.click()
        one('[role=option][aria-label="cifar10"]').click()
        page.execute_script("arguments[0].click()", one("#attack"))
        until(lambda: page.execute_script(PATHS, "robust"))
        for side, model in (("base", tiny_clip_dir), ("robust", other)):
            shown = [[" ".join(cell.split()) for cell in row] for row in page.execute_script(PATHS, side)]
            assert shown == expected(model, picture, tree="cifar10") and len(shown) > 1
        assert len(page.find_elements(By.CSS_SELECTOR, "#robust .pictures img")) == 3
        assert page.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")

        # A name that would be markup is a name.
        tree.click()
        one('[role=option][aria-label^="no tree"]').click()
        one("#labels textarea").send_keys("cat, <img src=x onerror=alert(1)>")
        page.execute_script("arguments[0].click()", one("#attack"))
        until(lambda: len(page.execute_script(PATHS, "robust")) == 1)
        shown = page.execute_script(PATHS, "base")[0]
        assert any("<img src=x" in cell or cell.startswith("cat") for cell in shown)
        assert not page.find_elements(By.CSS_SELECTOR, "#base img[src=x], #robust img[src=x]")
