"""A local Hub and client processes that know no other Hub."""

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

SERVER = Path(__file__).with_name("client_server.py")


class Clients:
    """Client processes of one Hub: forked with the stock libraries imported, or, offline, each on its own.

    The libraries keep the cache folder of their import, so that folder is a link, which leads into the folder
    of the test.
    """

    def __init__(self, server: HubServer, folder: Path):
        self.server, self.home = server, folder / "hf_home"
        self.streams = [folder / "stdout", folder / "stderr"]
        env = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        self.env = env | {
            "HF_ENDPOINT": server.url,
            "HF_HOME": str(self.home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.forks = subprocess.Popen([sys.executable, str(SERVER)], env=self.env, **pipes)

    def close(self) -> None:
        self.forks.communicate(timeout=60)

    def __call__(
        self,
        hub: HubServer,
        code: str,
        tmp_path: Path,
        *,
        token: str | None = "",
        check: bool = True,
        offline: bool = False,
        timeout: int = 900,  # a busy machine takes minutes
    ) -> subprocess.CompletedProcess:
        """Runs `code` (dedented) in a process of its own in `tmp_path`, with `hub` as its only Hub.

        Args:
            hub: The running `HubServer`.
            code: Python source; what it passes to the predefined `report(value)` comes back as JSON.
            tmp_path: Working directory; the client's cache and stored tokens are below it.
            token: Value of `HF_TOKEN`: "" is the server's own valid token, None leaves the variable out.
            check: Fail with the client's output when it ends with an error.
            offline: The client must get by with its cache.
            timeout: Seconds until the client is ended.

        Returns:
            The finished process; its attribute `reports` is the list of reported values.
        """
        (tmp_path / "hf_home").mkdir(exist_ok=True)
        self.home.unlink(missing_ok=True)
        self.home.symlink_to(tmp_path / "hf_home")
        report_path = tmp_path / "reports.jsonl"
        report_path.unlink(missing_ok=True)
        prelude = f"""
import json
def report(value):
    with open({str(report_path)!r}, "a") as file:
        file.write(json.dumps(value) + "\\n")
"""
        code = prelude + textwrap.dedent(code)
        env = {} if token is None else {"HF_TOKEN": token or hub.token}
        if offline:  # read at import
            command, env = [sys.executable, "-c", code], self.env | env | {"HF_HUB_OFFLINE": "1"}
            process = subprocess.run(
                command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=timeout
            )
        else:
            request = {"code": code, "cwd": str(tmp_path), "env": env, "timeout": timeout}
            process = self._fork(request | {"streams": [str(path) for path in self.streams]})
        if check:
            requests = "\n".join(f"{method} {path} {status}" for method, path, status in hub.log[-30:])
            assert process.returncode == 0, f"{process.stderr}\n{process.stdout}\nlast requests:\n{requests}"
        lines = report_path.read_text().splitlines() if report_path.exists() else []
        process.reports = [json.loads(line) for line in lines]
        return process

    def _fork(self, request: dict) -> subprocess.CompletedProcess:
        print(json.dumps(request), file=self.forks.stdin, flush=True)
        status = self.forks.stdout.readline()
        assert status, f"{SERVER.name} ended with status {self.forks.wait()}"
        said = (path.read_text() for path in self.streams)
        return subprocess.CompletedProcess(request["code"], int(status), *said)


@pytest.fixture(scope="session")
def hub_server() -> Iterator[HubServer]:
    """One server, since clients keep the endpoint of their import."""
    with HubServer() as server:
        yield server


@pytest.fixture
def hub(hub_server) -> HubServer:
    """An empty `HubServer` for one test, running in this process."""
    hub_server.clear()
    return hub_server


@pytest.fixture(scope="session")
def run_client(hub_server, tmp_path_factory) -> Iterator[Callable[..., subprocess.CompletedProcess]]:
    """The function `run_client(hub, code, tmp_path, *, token, check, offline, timeout)`, see `Clients`."""
    clients = Clients(hub_server, tmp_path_factory.mktemp("clients"))
    yield clients
    clients.close()
