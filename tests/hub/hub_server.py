"""An in-memory Hub for tests: the upload and download endpoints that huggingface_hub and transformers call.

Standard library only. It keeps model repositories with one branch (`main`) and a list of commits, stores
large files through the LFS protocol, and answers errors with the status and the `X-Error-Code` of the real
Hub, because the client decides by those which exception to raise. Clients need `HF_HUB_DISABLE_XET=1`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from hub_store import GITATTRIBUTES, Blob, HubError, Repo

LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".png", ".pdf")
REPO_ID = r"(?P<repo_id>[\w.-]+/[\w.-]+)"


class HubServer(ThreadingHTTPServer):
    """`with HubServer() as hub:` serves on an ephemeral port of 127.0.0.1 until the block ends.

    Attributes: `url`, `token` (the one token with write access, of user `user`), `repos` by id, `lfs_store`
    (content by SHA-256) and `log`, every answered request as `(method, path, status)`.
    """

    daemon_threads = True

    def __init__(self, user: str = "tester", token: str = "hf_local_test_token"):
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.user, self.token = user, token
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.repos: dict[str, Repo] = {}
        self.lfs_store: dict[str, bytes] = {}
        self.log: list[tuple[str, str, int]] = []
        self.lock = threading.Lock()

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
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            self.body = self._read_chunks()
        else:
            self.body = self.rfile.read(length)
        path = urlsplit(self.path).path
        try:
            with self.server.lock:
                self._authenticate()
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
        if self.command != "HEAD":
            self.wfile.write(body)
        self.server.log.append((self.command, self.path, status))

    def log_message(self, *args) -> None:
        """Quiet: requests are kept in `HubServer.log`."""

    def json(self) -> dict:
        return json.loads(self.body)

    def repo(self, repo_id: str, write: bool = False) -> Repo:
        repo = self.server.repos.get(repo_id)
        if write and not self.authenticated:
            raise HubError(401, None, "Invalid username or password.")
        if repo is None or (repo.private and not self.authenticated):
            # The real Hub does not tell a stranger whether a private repository exists.
            raise HubError(404 if self.authenticated else 401, "RepoNotFound", "Repository not found")
        return repo


def whoami(request: HubHandler) -> None:
    if not request.authenticated:
        raise HubError(401, None, "Invalid username or password.")
    access = {"type": "access_token", "accessToken": {"displayName": "test", "role": "write"}}
    request.answer({"type": "user", "name": request.server.user, "orgs": [], "auth": access})


def create_repo(request: HubHandler) -> None:
    if not request.authenticated:
        raise HubError(401, None, "Invalid username or password.")
    fields = request.json()
    if fields.get("type", "model") != "model":
        raise HubError(400, None, "the test server keeps model repositories only")
    owner = fields.get("organization") or request.server.user
    if owner != request.server.user:
        raise HubError(
            403, None, f"You don't have the rights to create a model under the namespace {owner!r}"
        )
    repo_id = f"{owner}/{fields['name']}"
    url = {"url": f"{request.server.url}/{repo_id}", "id": repo_id}
    if repo_id in request.server.repos:
        return request.answer({"error": "You already created this model repo", **url}, 409)
    repo = Repo(repo_id, private=fields.get("visibility") == "private")
    repo.commit("initial commit", {".gitattributes": Blob(GITATTRIBUTES, lfs=False)})
    request.server.repos[repo_id] = repo
    request.answer(url)


def validate_yaml(request: HubHandler) -> None:
    """The real endpoint also checks the metadata's schema; here the tests do that with a YAML parser."""
    header = re.match(r"---\r?\n.+?\r?\n---", request.json()["content"], re.DOTALL)
    warnings = [] if header else [{"message": "empty or missing yaml metadata in repo card"}]
    request.answer({"errors": [], "warnings": warnings})


def preupload(request: HubHandler, repo_id: str, revision: str) -> None:
    _, files = request.repo(repo_id, write=True).at(revision)
    answers = []
    for wanted in request.json()["files"]:
        path = wanted["path"]
        answer = {"path": path, "uploadMode": "lfs" if path.endswith(LFS_SUFFIXES) else "regular"}
        answer["shouldIgnore"] = False
        if path in files:
            answer["oid"] = files[path].oid
        answers.append(answer)
    request.answer({"files": answers})


def lfs_batch(request: HubHandler, repo_id: str) -> None:
    request.repo(repo_id, write=True)
    objects = []
    for wanted in request.json()["objects"]:
        answer = {"oid": wanted["oid"], "size": wanted["size"]}
        if wanted["oid"] not in request.server.lfs_store:
            href = f"{request.server.url}/lfs/{wanted['oid']}"
            verify = f"{request.server.url}/{repo_id}.git/info/lfs/verify"
            answer["actions"] = {"upload": {"href": href}, "verify": {"href": verify}}
        objects.append(answer)
    request.answer({"transfer": "basic", "objects": objects})


def lfs_put(request: HubHandler, oid: str) -> None:
    """As with the real store, the address is the permission: this request carries no token."""
    if hashlib.sha256(request.body).hexdigest() != oid:
        raise HubError(400, None, f"content does not hash to {oid}")
    request.server.lfs_store[oid] = request.body
    request.answer({})


def lfs_verify(request: HubHandler, repo_id: str) -> None:
    request.repo(repo_id, write=True)
    claim = request.json()
    stored = request.server.lfs_store.get(claim["oid"])
    if stored is None or len(stored) != claim["size"]:
        raise HubError(404, None, f"LFS object {claim['oid']} is missing or has another size")
    request.answer({})


def commit(request: HubHandler, repo_id: str, revision: str) -> None:
    repo = request.repo(repo_id, write=True)
    if revision != "main" or "create_pr" in urlsplit(request.path).query:
        raise HubError(400, None, "the test server commits to the branch main only")
    files, message = dict(repo.files), ""
    for line in request.body.splitlines():
        key, value = (operation := json.loads(line))["key"], operation["value"]
        if key == "header":
            message = value["summary"]
            if value.get("parentCommit", repo.head) != repo.head:
                raise HubError(412, None, "A commit has happened since. Please refresh and try again.")
        elif key == "file":
            files[value["path"]] = Blob(base64.b64decode(value["content"]), lfs=False)
        elif key == "lfsFile":
            if value["oid"] not in request.server.lfs_store:
                raise HubError(
                    400, None, f"LFS pointer pointed to a file that does not exist: {value['path']}"
                )
            files[value["path"]] = Blob(request.server.lfs_store[value["oid"]], lfs=True)
        elif key == "deletedFile":
            if files.pop(value["path"], None) is None:
                raise HubError(404, "EntryNotFound", "A file with this name doesn't exist")
        else:
            raise HubError(400, None, f"the test server does not know the commit operation {key!r}")
    oid = repo.commit(message, files)
    url = f"{request.server.url}/{repo_id}/commit/{oid}"
    request.answer({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})


def tree(request: HubHandler, repo_id: str, revision: str, folder: str | None = None) -> None:
    """Every file under `folder`, as for `recursive=True` (directories are left out)."""
    oid, files = request.repo(repo_id).at(revision)
    prefix = f"{folder.strip('/')}/" if folder else ""
    entries = []
    for path, blob in sorted(files.items()):
        if not path.startswith(prefix):
            continue
        entry = {"type": "file", "path": path, "size": len(blob.content), "oid": blob.oid}
        if blob.lfs:
            entry["lfs"] = {"oid": blob.oid, "size": len(blob.content), "pointerSize": 130}
        entries.append(entry)
    if prefix and not entries:
        raise HubError(404, "EntryNotFound", f"{folder} does not exist", {"X-Repo-Commit": oid})
    request.answer(entries)


def info(request: HubHandler, repo_id: str, revision: str = "main") -> None:
    repo = request.repo(repo_id)
    oid, files = repo.at(revision)
    siblings = [{"rfilename": path} for path in sorted(files)]
    about = {"id": repo_id, "modelId": repo_id, "sha": oid, "private": repo.private, "disabled": False}
    request.answer({**about, "gated": False, "tags": [], "downloads": 0, "likes": 0, "siblings": siblings})


def resolve(request: HubHandler, repo_id: str, revision: str, path: str) -> None:
    oid, files = request.repo(repo_id).at(revision)
    headers = {"X-Repo-Commit": oid}
    if path not in files:
        raise HubError(404, "EntryNotFound", "Entry not found", headers)
    blob = files[path]
    headers |= {"ETag": f'"{blob.oid}"', "Accept-Ranges": "bytes"}
    if blob.lfs:
        headers |= {"X-Linked-Etag": f'"{blob.oid}"', "X-Linked-Size": str(len(blob.content))}
    wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range") or "")
    if wanted is None:
        return request.answer(blob.content, headers=headers)
    first, last = int(wanted[1]), min(int(wanted[2] or len(blob.content)), len(blob.content) - 1)
    headers["Content-Range"] = f"bytes {first}-{last}/{len(blob.content)}"
    request.answer(blob.content[first : last + 1], 206, headers)


ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("GET", r"/api/whoami-v2", whoami),
    ("POST", r"/api/repos/create", create_repo),
    ("POST", r"/api/validate-yaml", validate_yaml),
    ("POST", rf"/api/models/{REPO_ID}/preupload/(?P<revision>[^/]+)", preupload),
    ("POST", rf"/{REPO_ID}\.git/info/lfs/objects/batch", lfs_batch),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", lfs_put),
    ("POST", rf"/{REPO_ID}\.git/info/lfs/verify", lfs_verify),
    ("POST", rf"/api/models/{REPO_ID}/commit/(?P<revision>[^/]+)", commit),
    ("GET", rf"/api/models/{REPO_ID}/tree/(?P<revision>[^/]+)", tree),
    ("GET", rf"/api/models/{REPO_ID}/tree/(?P<revision>[^/]+)/(?P<folder>.+)", tree),
    ("GET", rf"/api/models/{REPO_ID}/revision/(?P<revision>[^/]+)", info),
    ("GET", rf"/api/models/{REPO_ID}", info),
    ("GET", rf"/{REPO_ID}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", resolve),
]
