"""Headless Chromium and the Space's server, for tests; each says why where it cannot be had."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

APP = Path(__file__).resolve().parents[2] / "examples" / "space" / "app.py"


@contextmanager
def chromium(width: int, height: int) -> Iterator:
    """A selenium driver of Debian's Chromium; skips the test without package, browser or driver."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("no Chromium with its driver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--hide-scrollbars",
        "--no-proxy-server",
    ):
        options.add_argument(flag)
    page = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    try:
        resize(page, width, height)
        yield page
    finally:
        page.quit()


def resize(page, width: int, height: int) -> None:
    """A screen of this size; a headless window is never narrower than 500 pixels, a phone is."""
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)


@contextmanager
def space(monkeypatch: pytest.MonkeyPatch, **arguments) -> Iterator[str]:
    """The address of the Space, served by this process with ``arguments`` of its `serve`; needs gradio."""
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'hf_hierrobust[demo]'")
    found = importlib.util.spec_from_file_location("space_app", APP)
    app = importlib.util.module_from_spec(found)
    found.loader.exec_module(app)
    page = app.serve(**arguments, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    try:
        yield page.local_url
    finally:
        page.close()
