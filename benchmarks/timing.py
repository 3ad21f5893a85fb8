"""Interleaved timing: the sides of a ratio take turns, so that a drift of the machine hits all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def seconds(run: Callable, device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def interleave(sides: dict[str, Callable], rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds of each side, every round once each, in alternating order after one warm-up."""
    for run in sides.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(rounds):
        for name in list(sides) if round_ % 2 == 0 else list(sides)[::-1]:
            times[name].append(seconds(sides[name], device))
    return times


def compare(times: dict[str, list[float]], top: str, bottom: str) -> dict:
    ratios = [a / b for a, b in zip(times[top], times[bottom])]
    return {"median": round(statistics.median(ratios), 4), "range": [round(f(ratios), 4) for f in (min, max)]}
