"""The addresses of the local Hub of the tests, and what each answers."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from hub_store import GITATTRIBUTES, Blob, HubError, Repo

if TYPE_CHECKING:
    from hub_server import HubHandler

LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".png", ".pdf", ".parquet")
REPO_ID = r"(?P<repo_id>(?:datasets/)?[\w.-]+/[\w.-]+)"
API = r"/api/(?:models/(?=[\w.-]+/)|(?=datasets/))" + REPO_ID


def whoami(request: HubHandler) -> None:
    if not request.authenticated:
        raise HubError(401, None, "Invalid username or password.")
    access = {"type": "access_token", "accessToken": {"displayName": "test", "role": "write"}}
    request.answer({"type": "user", "name": request.server.user, "orgs": [], "auth": access})


def create_repo(request: HubHandler) -> None:
    if not request.authenticated:
        raise HubError(401, None, "Invalid username or password.")
    fields = request.json()
    if (kind := fields.get("type", "model")) not in ("model", "dataset"):
        raise HubError(400, None, "the test server keeps models and data sets only")
    owner = fields.get("organization") or request.server.user
    if owner != request.server.user:
        raise HubError(
            403, None, f"You don't have the rights to create a {kind} under the namespace {owner!r}"
        )
    repo_id = f"{'datasets/' if kind == 'dataset' else ''}{owner}/{fields['name']}"
    url = {"url": f"{request.server.url}/{repo_id}", "id": f"{owner}/{fields['name']}"}
    if repo_id in request.server.repos:
        return request.answer({"error": f"You already created this {kind} repo", **url}, 409)
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
    pull_request = request.query("create_pr") == "1"
    owner = repo_id.removeprefix("datasets/").partition("/")[0]
    if not pull_request and owner != request.server.user:
        raise HubError(403, None, f"{request.server.user} may not write to {repo_id}")
    if pull_request:
        revision = repo.open_pull_request()
    elif revision not in repo.branches:
        raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    head, files = repo.at(revision)
    files, message = dict(files), ""
    for line in request.body.splitlines():
        key, value = (operation := json.loads(line))["key"], operation["value"]
        if key == "header":
            message = value["summary"]
            if value.get("parentCommit", head) != head:
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
    oid = repo.commit(message, files, revision)
    url = f"{request.server.url}/{repo_id}/commit/{oid}"
    answer = {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""}
    if pull_request:
        number = revision.rpartition("/")[2]
        answer["pullRequestUrl"] = f"{request.server.url}/{repo_id}/discussions/{number}"
    request.answer(answer)


def create_branch(request: HubHandler, repo_id: str, revision: str) -> None:
    repo = request.repo(repo_id, write=True)
    if revision in repo.branches:
        raise HubError(409, None, f"Reference already exists: {revision}")
    start = request.json().get("startingPoint") or "main"
    repo.at(start)
    repo.add_branch(revision, start)
    request.answer({"success": True})


def refs(request: HubHandler, repo_id: str) -> None:
    branches = request.repo(repo_id).branches
    found = [
        {"name": name, "ref": f"refs/heads/{name}", "targetCommit": history[-1][0]}
        for name, history in branches.items()
        if not name.startswith("refs/")
    ]
    request.answer({"branches": found, "converts": [], "tags": []})


def entry_of(path: str, files: dict[str, Blob]) -> dict | None:
    """What a listing says of a file or folder; None where it is neither."""
    if (blob := files.get(path)) is None:
        below = any(name.startswith(f"{path}/") for name in files)
        return {"type": "directory", "path": path, "oid": "0" * 40, "size": 0} if below else None
    entry = {"type": "file", "path": path, "size": len(blob.content), "oid": blob.oid}
    if blob.lfs:
        entry["lfs"] = {"oid": blob.oid, "size": len(blob.content), "pointerSize": 130}
    return entry


def tree(request: HubHandler, repo_id: str, revision: str, folder: str = "") -> None:
    """What lies in `folder`; with `recursive=True` also below its folders."""
    oid, files = request.repo(repo_id).at(revision)
    prefix = f"{folder.strip('/')}/" if folder else ""
    parts = [path.removeprefix(prefix).split("/") for path in files if path.startswith(prefix)]
    deepest = max(map(len, parts), default=0) if request.query("recursive").lower() == "true" else 1
    found = {"/".join(part[:depth]) for part in parts for depth in range(1, 1 + min(len(part), deepest))}
    if prefix and not found:
        raise HubError(404, "EntryNotFound", f"{folder} does not exist", {"X-Repo-Commit": oid})
    request.answer([entry_of(prefix + path, files) for path in sorted(found)])


def paths_info(request: HubHandler, repo_id: str, revision: str) -> None:
    _, files = request.repo(repo_id).at(revision)
    wanted = parse_qs(request.body.decode()).get("paths", [])
    request.answer([entry for path in wanted if (entry := entry_of(path, files))])


def info(request: HubHandler, repo_id: str, revision: str = "main") -> None:
    repo = request.repo(repo_id)
    oid, files = repo.at(revision)
    siblings = [{"rfilename": path} for path in sorted(files)]
    name = repo_id.removeprefix("datasets/")
    about = {"id": name, "modelId": name, "sha": oid, "private": repo.private, "disabled": False}
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
    ("POST", rf"{API}/preupload/(?P<revision>[^/]+)", preupload),
    ("POST", rf"/{REPO_ID}\.git/info/lfs/objects/batch", lfs_batch),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", lfs_put),
    ("POST", rf"/{REPO_ID}\.git/info/lfs/verify", lfs_verify),
    ("POST", rf"{API}/commit/(?P<revision>[^/]+)", commit),
    ("GET", rf"{API}/tree/(?P<revision>[^/]+)", tree),
    ("GET", rf"{API}/tree/(?P<revision>[^/]+)/(?P<folder>.+)", tree),
    ("GET", rf"{API}/revision/(?P<revision>[^/]+)", info),
    ("GET", rf"{API}", info),
    ("GET", rf"{API}/refs", refs),
    ("POST", rf"{API}/branch/(?P<revision>.+)", create_branch),
    ("POST", rf"{API}/paths-info/(?P<revision>[^/]+)", paths_info),
    ("GET", rf"/{REPO_ID}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", resolve),
]
