"""Headless Chromium and the Space's server, for tests; each says why where it cannot be had."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

APP = Path(__file__).resolve().parents[2] / "examples" / "space" / "app.py"
PATIENCE = 120
"""Seconds that a page or an answer may take on a busy machine."""


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
    ):
        options.add_argument(flag)
    page = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    try:
        # A headless window is never narrower than 500 pixels; a phone is.
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        yield page
    finally:
        page.quit()


@contextmanager
def space(environment: Mapping[str, str], log: Path) -> Iterator[str]:
    """The Space's address; skips the test without gradio, fails with the log where it does not start."""
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'hf_hierrobust[demo]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"GRADIO_SERVER_PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    with log.open("w") as out:
        server = subprocess.Popen(
            [sys.executable, str(APP)],
            env={**os.environ, **settings, **environment},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    address, begin = f"http://127.0.0.1:{port}", time.monotonic()
    try:
        while True:
            if server.poll() is not None or time.monotonic() - begin > PATIENCE:
                pytest.fail(f"the Space did not start:\n{log.read_text()[-3000:]}")
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait(20)
