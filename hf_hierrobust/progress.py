"""One line for every stage of a run, from its first second."""

from __future__ import annotations

import os
import time

_START = time.monotonic()


def say(text: str) -> None:
    """Print a line with the seconds since the start, on the first process of a machine."""
    if os.environ.get("LOCAL_RANK", "0") in ("0", "-1"):
        print(f"[{time.monotonic() - _START:4.0f} s] {text}", flush=True)
