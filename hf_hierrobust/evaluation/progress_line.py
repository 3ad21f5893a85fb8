"""One line that says where an evaluation is, what it has found, and how long it will still take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm.auto import tqdm

from .runner import KNOWN, Progress
from .shards import Shards

SECONDS = 1.0
"""The line is drawn anew this often where a stage begins."""


@contextmanager
def progress_line(title: str | None, total: int, shards: Shards) -> Iterator[Callable[[Progress], None]]:
    """A bar over the images of all jobs, drawn by the first process about its own share.

    Args:
        title: what is measured; None draws nothing.
        total: images of this process, counted once for each job.
    """
    if shards.count > 1:
        title = title and f"{title} (process 1 of {shards.count})"
    silent = title is None or shards.rank > 0
    drawn = time.monotonic()
    with tqdm(total=total, desc=title, disable=silent, unit="image", smoothing=0.1) as bar:

        def advance(now: Progress) -> None:
            nonlocal drawn
            if silent:
                return
            found = f"clean {now.clean:.3f}, robust {now.robust:.3f}"
            left = f"{bar.total - bar.n - now.images:,} images left"
            bar.set_postfix_str(f"{now.job.title}, {now.stage}: {found}, {left}", refresh=False)
            if now.stage == KNOWN:  # took no time that says how long the rest will take
                bar.initial += now.images
                bar.last_print_n += now.images
                bar.n += now.images
            else:
                bar.update(now.images)
            if time.monotonic() - drawn > SECONDS:  # an attack on one batch may take minutes
                bar.refresh()
                drawn = time.monotonic()

        yield advance
