"""Retrieval of one model on one set: embeddings clean and attacked, and the records that they come to."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import logging

from ..attacks import PGD, EmbeddingPGD, TextAttack
from ..classifiers import frozen
from ..data import PixelCollator
from ..data.captions import CaptionedImages
from ..modeling import PixelPipeline, RobustDualEncoder, TextEncoder
from .retrieval import Pairs, attack_captions, attack_pixels, own_entries, ranks, recalls
from .retrieval_records import RetrievalRecord

logger = logging.get_logger(__name__)


def measure_retrieval(
    images: ImageSide,
    encoder: TextEncoder,
    text_attack: TextAttack | EmbeddingPGD,
    attacks: Sequence[PGD],
    common: Mapping[str, Any],
) -> list[RetrievalRecord]:
    """Records: clean, attacked captions, then for each budget attacked pixels, and both.

    Args:
        attacks: budget, steps and step size of each attack on the pixels, on the margin of the captions.
        common: fields that all records share, ``seed`` among them.

    Raises:
        ValueError: all images have the same single caption.
    """
    with frozen(images.model):
        return _Measured(images, encoder, text_attack, common).records(attacks)


@dataclass
class ImageSide:
    """The images, batch by batch; decoded anew for each attack."""

    model: RobustDualEncoder
    processor: Any
    data: CaptionedImages
    space: str
    batch_size: int

    def __post_init__(self):
        self.collate = PixelCollator(self.processor.image_processor, self.space)
        self.pipeline = PixelPipeline(self.processor.image_processor, self.space)

    def encode(self, pixels: Tensor) -> Tensor:
        """Unit embeddings (B, D)."""
        return F.normalize(self.model.encode_image(self.pipeline(pixels)).float(), dim=-1)

    def batches(self) -> Iterator[tuple[int, Tensor]]:
        """(first row, pixels (B, 3, H, W) in [0, 1])."""
        for first in range(0, len(self.data.captions), self.batch_size):
            rows = range(first, min(first + self.batch_size, len(self.data.captions)))
            pixels = self.collate([self.data.images[row] for row in rows])["pixels"]
            yield first, pixels.to(self.model.device)

    @torch.no_grad()
    def clean(self) -> Tensor:
        return torch.cat([self.encode(pixels) for _, pixels in self.batches()])

    def attacked(self, texts: Tensor, pairs: Pairs, attack: PGD, seed: int) -> Tensor:
        found = []
        for first, pixels in self.batches():
            own = own_entries(pairs.links, first, len(pixels), len(texts), pixels.device)
            generator = torch.Generator().manual_seed(seed + 1_000_003 * first)
            found.append(
                attack_pixels(
                    self.encode,
                    pixels,
                    texts,
                    own,
                    attack.threat,
                    num_steps=attack.num_steps,
                    step_size=attack.step,
                    generator=generator,
                )
            )
        return torch.cat(found)


class _Measured:
    """Embeddings of one model and its data, and the records that they come to."""

    def __init__(self, images: ImageSide, encoder: TextEncoder, text_attack, common: Mapping):
        self.images, self.text_attack, self.common = images, text_attack, common
        self.seed = seed = common["seed"]
        captions = [encoder.fit(texts) for texts in images.data.captions]
        if cut := sum(a != b for a, b in zip(captions, images.data.captions)):
            logger.warning(f"{cut} images have captions of over {encoder.context} tokens: their ends are cut")
        self.pairs = pairs = Pairs.of(captions)
        if len(pairs.captions) < 2:
            raise ValueError(f"{images.data.name} has one caption for all: retrieval chooses among several")
        self.started = time.perf_counter()
        generator = torch.Generator(encoder.device).manual_seed(seed)
        self.image = images.clean()
        with torch.no_grad():
            self.text = F.normalize(encoder(pairs.captions).float(), dim=-1)
        self.clean = self._ranks(self.image, self.text)
        self.other_text = attack_captions(text_attack, encoder, pairs, self.image, generator)
        self.under_text = self._worse(self.clean, self._ranks(self.image, self.other_text))

    def records(self, attacks: Sequence[PGD]) -> list[RetrievalRecord]:
        words = self.text_attack.describe()
        found = [
            self._record("nothing", self.clean),
            self._record("text", self.under_text, text_attack=words),
        ]
        for attack in attacks:
            options = (self.pairs, attack, self.seed)
            constants = {
                "name": "retrieval-pgd",
                "norm": attack.norm,
                "eps": attack.eps,
                "space": attack.space,
                "loss": "margin",
                "num_steps": attack.num_steps,
                "step_size": attack.step,
                "random_start": "uniform",
            }
            image = self._ranks(self.images.attacked(self.text, *options), self.text)
            image = self._worse(self.clean, image)
            found.append(self._record("image", image, attack=constants))
            joint = self._ranks(self.images.attacked(self.other_text, *options), self.other_text)
            joint = self._worse(image, self.under_text, joint)
            found.append(self._record("joint", joint, attack=constants, text_attack=words))
        return found

    def _ranks(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        return ranks(image, text, self.pairs.links), ranks(text, image, self.pairs.turned())

    def _worse(self, *found: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """A query counts as found only where each of these attacks leaves it."""
        return tuple(torch.stack(parts).amax(0) for parts in zip(*found))

    def _record(self, attacked: str, found: tuple[Tensor, Tensor], **attacks) -> RetrievalRecord:
        record = RetrievalRecord(
            **self.common,
            **attacks,
            attacked=attacked,
            num_images=len(found[0]),
            num_captions=len(found[1]),
            recalls={"image_to_text": recalls(found[0]), "text_to_image": recalls(found[1])},
            wall_seconds=round(time.perf_counter() - self.started, 1),
        )
        self.started = time.perf_counter()
        return record
