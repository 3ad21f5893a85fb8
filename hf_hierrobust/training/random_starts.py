"""Random starts of training attacks, repeatable and apart from every other source of chance."""

from __future__ import annotations

import hashlib

import torch
from transformers import TrainerCallback


class StepGenerators(TrainerCallback):
    """The generators of a step: a function of seed, rank, step and the number drawn in this step only.

    So a resumed run draws what the uninterrupted one would have, ranks and micro-batches differ, and neither
    evaluation nor the global generator is touched.

    Args:
        seed, rank: of the run and the process.
        device: of the generators.
    """

    def __init__(self, seed: int, rank: int, device: torch.device):
        self.seed, self.rank, self.device = seed, rank, device
        self.step = self.drawn = 0

    def on_step_begin(self, args, state, control, **kwargs):
        self.step, self.drawn = state.global_step, 0

    def __call__(self) -> torch.Generator:
        """The next generator of this step."""
        key = (self.seed, self.rank, self.step, self.drawn)
        self.drawn += 1
        seed = int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "little") >> 1
        return torch.Generator(self.device).manual_seed(seed)
