"""Processes that share the batches of an evaluation out among themselves."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Shards:
    """Every process takes whole batches: of B batches process r of n takes r, r + n, r + 2n, …

    A batch is attacked as a single process would, so the verdicts are the same.

    Args:
        rank, count: number of this process, and of all.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def joined(cls) -> Shards:
        """The processes of ``torch.distributed``, if it runs; else this one alone."""
        if not dist.is_available() or not dist.is_initialized():
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    def numbers(self) -> Iterator[int]:
        """Numbers of this process's batches, without an end."""
        return itertools.count(self.rank, self.count)

    def mine(self, values: Sequence) -> Sequence:
        """This process's share of one value a batch."""
        return values[self.rank :: self.count]

    def first_says(self, flag: bool) -> bool:
        """What the first process says, on all of them: they have to do the same."""
        return self.gather(["yes"] if flag and self.rank == 0 else []) == ["yes"]

    def gather(self, lines: Sequence[str]) -> list[str]:
        """Lines (without line breaks) of all processes, those of the first one first, on each of them."""
        if self.count == 1:
            return list(lines)
        group = _patient_group(dist.group.WORLD)
        # Text in tensors: gathering objects would pickle them. One more line break, so that there is a byte.
        text = "".join(f"{line}\n" for line in lines) + "\n"
        raw = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.long) for _ in range(self.count)]
        dist.all_gather(sizes, torch.tensor([len(raw)]), group)
        padded = torch.zeros(int(max(sizes)), dtype=torch.uint8)
        padded[: len(raw)] = raw
        found = [torch.zeros_like(padded) for _ in range(self.count)]
        dist.all_gather(found, padded, group)
        texts = (bytes(part[: int(size)].tolist()).decode() for part, size in zip(found, sizes))
        return [line for text in texts for line in text.split("\n") if line]


@lru_cache(maxsize=1)
def _patient_group(world: dist.ProcessGroup) -> dist.ProcessGroup:
    """All processes, on CPUs; the last to finish its batches may be hours behind the first."""
    return dist.new_group(backend="gloo", timeout=timedelta(days=30))
