"""What training images draw at random, as augmented ones do: a function of seed, epoch and row only."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info


@contextmanager
def drawing(*key: int) -> Iterator[None]:
    """The global generators of Python, NumPy and torch's CPU start from the key inside, and go on after."""
    seed = int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:4], "little")
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)
        torch.random.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


class _Epochs:
    """A data set that knows the pass; so do workers, which keep their copy from one pass to the next."""

    def __init__(self, images: Dataset, seed: int):
        self.images, self.seed = images, seed
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)
        if hasattr(self.images, "set_epoch"):
            self.images.set_epoch(epoch)


class DrawnImages(_Epochs, Dataset):
    """Items of a map-style data set, each read under generators of its own.

    So neither the number of workers and processes, nor how far a loader reads ahead, nor a resume changes
    what is read, and reading changes nothing else.
    """

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> dict:
        with drawing(self.seed, self.epoch, int(row)):
            return self.images[row]


class DrawnStream(_Epochs, IterableDataset):
    """`DrawnImages` of a stream, by an item's place among those of its worker."""

    def __iter__(self) -> Iterator[dict]:
        worker = get_worker_info()
        items, end = iter(self.images), object()
        for place in count():
            with drawing(self.seed, self.epoch, 0 if worker is None else worker.id, place):
                item = next(items, end)
            if item is end:
                return
            yield item


def drawn(images: Dataset, seed: int) -> DrawnImages | DrawnStream:
    """Training images whose draws are repeatable."""
    return (DrawnStream if isinstance(images, IterableDataset) else DrawnImages)(images, seed)
