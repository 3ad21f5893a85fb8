"""A run's folder, pushed, and what to say of it."""

from __future__ import annotations

import os

from ..hub import push_folder
from ..progress import say


def push(folder: str | os.PathLike, repo_id: str, *, create_pr: bool = False, **options) -> str:
    """Upload a folder, see `push_folder`, and say where it is now.

    Raises:
        As `push_folder`.
    """
    say(f"pushing to {repo_id}")
    done = push_folder(os.path.expanduser(folder), repo_id, create_pr=create_pr, **options)
    if done.pr_url:
        return f"pull request {done.pr_url}"
    return f"pushed: {done.commit_url}"
