"""The batches of a set in one threat space, with the identity of every image in them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import torch
from torch import Tensor

from .doubts import per_class
from .records import describe_samples
from .sets import EvaluationSet
from .shards import Shards

KEPT_BYTES = 256 << 20
"""Decoded images that stay in memory between their hash and their attack."""


class Batches:
    """This process's share of the batches of a set; it notes the identity of every image that passes.

    Args:
        processor: of the model; only the space ``"model"`` needs it.
        shards: the processes.
    """

    def __init__(self, data: EvaluationSet, processor, space: str, batch_size: int, shards: Shards):
        self.data, self.shards = data, shards
        self._loader = lambda skip: data.loader(processor, space, batch_size, shards, skip)
        self._rows = shards.mine(data.batches(batch_size))
        self._ids: list[list[str]] = []
        self._labels: list[list[int]] = []
        self._kept: list[dict[str, Tensor]] = []

    def read_ahead(self) -> None:
        """Decode all images for their identity, before the first is attacked; the first ones are kept."""
        room = KEPT_BYTES
        for batch in self._loader(0):
            grey = self._note(batch)
            if torch.equal(_pixels(grey), batch["pixels"]):  # a quarter of the memory
                batch = batch | {"pixels": grey}
            room -= batch["pixels"].nbytes
            if room >= 0:
                self._kept.append(batch)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for batch in self._kept:
            eight_bit = batch["pixels"].dtype == torch.uint8
            yield batch | {"pixels": _pixels(batch["pixels"])} if eight_bit else batch
        known = len(self._ids)
        for number, batch in enumerate(self._loader(len(self._kept)), start=len(self._kept)):
            if number >= known:
                self._note(batch)
            yield batch

    def describe(self) -> dict:
        """The record's ``sample_ids``: row, label and a digest of the 8-bit pixels of each image.

        All processes have to ask together; each gets the answer about all images.
        """
        mine = zip(self.shards.numbers(), self._ids, self._labels)
        found = sorted(json.loads(line) for line in self.shards.gather([json.dumps(one) for one in mine]))
        ids = [name for _, names, _ in found for name in names]
        labels = [label for _, _, batch in found for label in batch]
        spread = {"per_class": per_class(labels, len(self.data.class_set))}
        if self.data.shared_with_training is not None:
            spread["shared_with_training"] = self.data.shared_with_training
        return describe_samples(ids, self.data.how) | spread

    def _note(self, batch: dict[str, Tensor]) -> Tensor:
        """The 8-bit pixels."""
        grey = (batch["pixels"] * 255).round().to(torch.uint8)
        rows, labels = self._rows[len(self._ids)], batch["labels"].tolist()
        digests = [hashlib.sha256(image.tobytes()).hexdigest()[:16] for image in grey.numpy()]
        self._ids.append([f"{row}:{label}:{name}" for row, label, name in zip(rows, labels, digests)])
        self._labels.append(labels)
        return grey


def _pixels(grey: Tensor) -> Tensor:
    return grey.to(torch.float32).div_(255)
