"""The objective's named terms between two lines of the log."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

import torch
from torch import Tensor


class TermMeans:
    """Collects terms of steps and gives their means."""

    def __init__(self):
        self._values: dict[str, list[Tensor]] = defaultdict(list)

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Keep the values (0-dim) of one micro-batch, without their graph."""
        for name, value in terms.items():
            self._values[name].append(value.detach())

    def take(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Mean of every term since the last call, over micro-batches and, by ``reduce``, over processes."""
        if not self._values:
            return {}
        means = reduce(torch.stack([torch.stack(values).mean().float() for values in self._values.values()]))
        found = {name: round(value, 5) for name, value in zip(self._values, means.tolist())}
        self._values.clear()
        return found
