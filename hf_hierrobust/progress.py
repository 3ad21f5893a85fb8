"""One line for every stage of a run, from its first second."""

from __future__ import annotations

import os
import time

_START = time.monotonic()


class Pace:
    """Says how far a long loop is, as often as somebody who waits would ask."""

    def __init__(self, what: str, total: int, seconds: float = 15):
        self.what, self.total, self.seconds, self._said = what, total, seconds, time.monotonic()

    def step(self, done: int, more: str) -> None:
        """After ``done`` of ``total`` steps: a line, if the last is long ago or this is the end."""
        if done < self.total and time.monotonic() - self._said < self.seconds:
            return
        self._said = time.monotonic()
        say(f"{self.what}: {done} of {self.total} steps, {more}")


def say(text: str) -> None:
    """Print a line with the seconds since the start, on the first process of a machine."""
    if os.environ.get("LOCAL_RANK", "0") in ("0", "-1"):
        print(f"[{time.monotonic() - _START:4.0f} s] {text}", flush=True)
