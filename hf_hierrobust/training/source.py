"""Which source of this package a training ran, for its card."""

from __future__ import annotations

import functools
import json
import subprocess
from contextlib import suppress
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path


@functools.cache
def source_commit() -> str | None:
    """The commit that this package was installed or is run from, where git or pip knows it.

    A checkout with changed files says so.
    """
    with suppress(PackageNotFoundError, ValueError, AttributeError):
        about = json.loads(Distribution.from_name("hf_hierrobust").read_text("direct_url.json") or "{}")
        if commit := about.get("vcs_info", {}).get("commit_id"):
            return str(commit)[:12]
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, timeout=10)
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "hf_hierrobust"], timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if head.returncode:
        return None
    return head.stdout.decode().strip() + (" with changes" if changed.returncode else "")
