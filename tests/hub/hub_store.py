"""What the local Hub of the tests keeps: files, repositories as lists of commits, and its error answers."""

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


@dataclass
class Repo:
    """A model repository: commits in order, each `(oid, message, {path: Blob})`."""

    repo_id: str
    private: bool
    commits: list[tuple[str, str, dict[str, Blob]]] = field(default_factory=list)

    def commit(self, message: str, files: dict[str, Blob]) -> str:
        history = self.head if self.commits else ""
        listing = "".join(f"{path} {blob.oid}\n" for path, blob in sorted(files.items()))
        oid = hashlib.sha1(f"{history}\n{message}\n{listing}".encode()).hexdigest()
        self.commits.append((oid, message, files))
        return oid

    @property
    def head(self) -> str:
        return self.commits[-1][0]

    @property
    def files(self) -> dict[str, Blob]:
        return self.commits[-1][2]

    def at(self, revision: str) -> tuple[str, dict[str, Blob]]:
        if revision == "main":
            return self.head, self.files
        for oid, _, files in self.commits:
            if oid == revision:
                return oid, files
        raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")


class HubError(Exception):
    """An error answer: HTTP status, `X-Error-Code`, message and extra headers."""

    def __init__(self, status: int, code: str | None, message: str, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers or {}
