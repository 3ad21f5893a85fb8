"""A local Hub and a client process that knows no other Hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_server import HubServer


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """An empty `HubServer` for one test, running in this process."""
    with HubServer() as server:
        yield server


def _run_client(
    server: HubServer,
    code: str,
    tmp_path: Path,
    *,
    token: str | None = "",
    check: bool = True,
    offline: bool = False,
    timeout: float = 900,  # a busy machine needs minutes to import torch
) -> subprocess.CompletedProcess:
    """Runs `code` (dedented) in a fresh Python in `tmp_path`, with `server` as its only Hub.

    A process of its own, because huggingface_hub, transformers and datasets read the endpoint at import.

    Args:
        server: A running `HubServer`.
        code: Python source; what it passes to the predefined `report(value)` comes back as JSON.
        tmp_path: Working directory; the client's cache and stored tokens are below it.
        token: Value of `HF_TOKEN`: "" is the server's own valid token, None leaves the variable out.
        check: Fail with the client's output when it ends with an error.
        offline: The client must get by with its cache.

    Returns:
        The finished process; its attribute `reports` is the list of reported values.
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    env |= {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(tmp_path / "hf_home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if offline:
        env["HF_HUB_OFFLINE"] = "1"
    if token is not None:
        env["HF_TOKEN"] = token or server.token
    report_path = tmp_path / "reports.jsonl"
    report_path.unlink(missing_ok=True)
    prelude = f"""
import json
def report(value):
    with open({str(report_path)!r}, "a") as file:
        file.write(json.dumps(value) + "\\n")
"""
    process = subprocess.run(
        [sys.executable, "-c", prelude + textwrap.dedent(code)],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if check:
        requests = "\n".join(f"{method} {path} {status}" for method, path, status in server.log[-30:])
        assert process.returncode == 0, f"{process.stderr}\n{process.stdout}\nlast requests:\n{requests}"
    lines = report_path.read_text().splitlines() if report_path.exists() else []
    process.reports = [json.loads(line) for line in lines]
    return process


@pytest.fixture(scope="session")
def run_client() -> Callable[..., subprocess.CompletedProcess]:
    """The function `run_client(server, code, tmp_path, *, token, check, offline, timeout)`."""
    return _run_client
