"""An in-memory Hub for tests: the upload and download endpoints that huggingface_hub and transformers call.

Standard library only. It keeps model and data set repositories with branches and pull requests, stores large
files through the LFS protocol, and answers errors with the status and the `X-Error-Code` of the real Hub,
because the client decides by those which exception to raise. Clients need `HF_HUB_DISABLE_XET=1`.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from hub_endpoints import LFS_SUFFIXES, ROUTES
from hub_store import Blob, Fault, HubError, Repo


class HubServer(ThreadingHTTPServer):
    """`with HubServer() as hub:` serves on an ephemeral port of 127.0.0.1 until the block ends.

    Attributes: `url`, `token` (the one token with write access, of user `user`), `repos` by id (of data sets
    with `datasets/` before it), `lfs_store` (content by SHA-256), `faults` to come (see `fail`), and `log`,
    every answered request as `(method, path, status)`; a cut one has status 0.
    """

    daemon_threads = True

    def __init__(self, user: str = "tester", token: str = "hf_local_test_token"):
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.user, self.token = user, token
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Forget all that was stored, asked and planned."""
        self.repos: dict[str, Repo] = {}
        self.lfs_store: dict[str, bytes] = {}
        self.log: list[tuple[str, str, int]] = []
        self.faults: list[Fault] = []

    def fail(self, method: str, part: str, **how) -> None:
        """Let requests fail, see `Fault`."""
        self.faults.append(Fault(method, part, **how))

    def add_repo(self, repo_id: str, files: dict[str, bytes], private: bool = False) -> Repo:
        """A repository with these files, as somebody else has pushed it."""
        repo = self.repos[repo_id] = Repo(repo_id, private)
        repo.commit(
            "files", {path: Blob(content, path.endswith(LFS_SUFFIXES)) for path, content in files.items()}
        )
        return repo

    def __enter__(self) -> HubServer:
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class HubHandler(BaseHTTPRequestHandler):
    """Finds the endpoint in `ROUTES`, checks the token, and turns `HubError` into the Hub's error answer."""

    protocol_version = "HTTP/1.1"  # the client keeps its connections alive
    server: HubServer

    def _dispatch(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.fault = next((f for f in self.server.faults if f.takes(self.command, self.path)), None)
        if self.fault and self.fault.after is not None and self.command != "GET":
            self.rfile.read(min(length, self.fault.after))
            return self._cut()
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            self.body = self._read_chunks()
        else:
            self.body = self.rfile.read(length)
        path = urlsplit(self.path).path
        try:
            with self.server.lock:
                self._authenticate()
                if self.fault and self.fault.status:
                    raise HubError(self.fault.status, None, "the server is ill today")
                method = "GET" if self.command == "HEAD" else self.command
                for verb, pattern, endpoint in ROUTES:
                    match = re.fullmatch(pattern, path)
                    if verb == method and match:
                        endpoint(self, **{key: unquote(value) for key, value in match.groupdict().items()})
                        return
                raise HubError(404, None, f"no endpoint {self.command} {path} in the test server")
        except HubError as error:
            headers = {"X-Error-Message": str(error), **error.headers}
            if error.code:
                headers["X-Error-Code"] = error.code
            self.answer({"error": str(error)}, error.status, headers)

    def _cut(self) -> None:
        """Close the connection where the client expects more."""
        self.server.log.append((self.command, self.path, 0))
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_HEAD = do_POST = do_PUT = _dispatch

    def _read_chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _authenticate(self) -> None:
        authorization = self.headers.get("Authorization")
        self.authenticated = authorization == f"Bearer {self.server.token}"
        if authorization and not self.authenticated:
            raise HubError(401, None, "Invalid credentials in Authorization header")

    def answer(self, payload: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """Sends `payload` (bytes as they are, anything else as JSON) and logs the request."""
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        kind = "application/octet-stream" if isinstance(payload, bytes) else "application/json"
        self.send_response(status)
        for key, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.fault and self.fault.after is not None:
            self.wfile.write(body[: self.fault.after])
            return self._cut()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.server.log.append((self.command, self.path, status))

    def log_message(self, *args) -> None:
        """Quiet: requests are kept in `HubServer.log`."""

    def json(self) -> dict:
        return json.loads(self.body or b"{}")

    def query(self, name: str) -> str:
        return parse_qs(urlsplit(self.path).query).get(name, [""])[0]

    def repo(self, repo_id: str, write: bool = False) -> Repo:
        repo = self.server.repos.get(repo_id)
        if write and not self.authenticated:
            raise HubError(401, None, "Invalid username or password.")
        if repo is None or (repo.private and not self.authenticated):
            # The real Hub does not tell a stranger whether a private repository exists.
            raise HubError(404 if self.authenticated else 401, "RepoNotFound", "Repository not found")
        return repo
