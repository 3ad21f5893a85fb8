"""What the local Hub of the tests keeps: files, repositories as branches of commits, errors, faults."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

GITATTRIBUTES = (
    b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n*.bin filter=lfs diff=lfs merge=lfs -text\n"
)


@dataclass(frozen=True)
class Blob:
    """One stored file; `oid` is the git blob hash, or the SHA-256 of the content for an LFS file."""

    content: bytes
    lfs: bool

    @property
    def oid(self) -> str:
        if self.lfs:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


Commit = tuple[str, str, dict[str, Blob]]


@dataclass
class Repo:
    """A repository: each branch its commits in order, each `(oid, message, {path: Blob})`.

    A pull request is the branch `refs/pr/N`.
    """

    repo_id: str
    private: bool
    branches: dict[str, list[Commit]] = field(default_factory=lambda: {"main": []})

    def commit(self, message: str, files: dict[str, Blob], branch: str = "main") -> str:
        history = self.branches[branch]
        listing = "".join(f"{path} {blob.oid}\n" for path, blob in sorted(files.items()))
        before = history[-1][0] if history else ""
        oid = hashlib.sha1(f"{branch}\n{before}\n{message}\n{listing}".encode()).hexdigest()
        history.append((oid, message, files))
        return oid

    def add_branch(self, branch: str, start: str = "main") -> None:
        found = self.branches.get(start)
        if found is None:
            found = [next(commit for history in self.branches.values() for commit in history
                          if commit[0] == start)]  # fmt: skip
        self.branches[branch] = list(found)

    def open_pull_request(self) -> str:
        branch = f"refs/pr/{1 + sum(name.startswith('refs/pr/') for name in self.branches)}"
        self.add_branch(branch)
        return branch

    @property
    def commits(self) -> list[Commit]:
        return self.branches["main"]

    @property
    def head(self) -> str:
        return self.commits[-1][0]

    @property
    def files(self) -> dict[str, Blob]:
        return self.commits[-1][2]

    def at(self, revision: str) -> tuple[str, dict[str, Blob]]:
        if revision in self.branches:
            oid, _, files = self.branches[revision][-1]
            return oid, files
        for history in self.branches.values():
            for oid, _, files in history:
                if oid == revision:
                    return oid, files
        raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")


class HubError(Exception):
    """An error answer: HTTP status, `X-Error-Code`, message and extra headers."""

    def __init__(self, status: int, code: str | None, message: str, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers or {}


@dataclass
class Fault:
    """What goes wrong with the next `times` requests of a method whose path holds `part`.

    With a `status` the server answers that; with `after`, the connection is cut once so many bytes of the
    request's or the answer's body have passed.
    """

    method: str
    part: str
    times: int = 1
    status: int | None = None
    after: int | None = None

    def takes(self, method: str, path: str) -> bool:
        """Whether this request fails; it then counts as one of `times`."""
        if self.times < 1 or method != self.method or self.part not in path:
            return False
        self.times -= 1
        return True
