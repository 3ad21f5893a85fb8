"""Evaluations of a small network in processes that die at a chosen operation, or share their batches."""

from __future__ import annotations

import itertools
import os
import random
import signal
from pathlib import Path

import torch
from forked import CONTEXT
from torch import nn
from torch.utils.data import TensorDataset

from hf_hierrobust import evaluate
from hf_hierrobust.attacks import PGD
from hf_hierrobust.evaluation import RobustnessRecord, probes, records_hash, runner

ATTACKS = [PGD(num_steps=1), PGD(num_steps=3, loss="margin", random_start="gaussian")]


class Corner(nn.Module):
    """Four classes by the mean of the red and green channels, with noise from the global generator."""

    def __init__(self, noise: float = 0.0):
        super().__init__()
        self.noise = noise
        self.weight = nn.Parameter(torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]))

    def forward(self, pixels):
        logits = (pixels.mean((2, 3))[:, :2] - 0.5) @ self.weight.T * 20
        return logits + self.noise * torch.randn_like(logits)


def corner_images(count: int = 22) -> TensorDataset:
    """Grey images near the boundaries, some of them with a wrong label."""
    generator = torch.Generator().manual_seed(0)
    levels = 128 + torch.randint(-9, 10, (count, 3, 1, 1), generator=generator)
    pixels = (levels + torch.randint(-9, 10, (count, 3, 6, 6), generator=generator)).to(torch.uint8)
    labels = Corner()(pixels / 255).argmax(1)
    labels[::7] = (labels[::7] + 1) % 4
    return TensorDataset(pixels, labels)


def measure_corner(state_dir=None, net=None, data=None, **options) -> list[RobustnessRecord]:
    """Two budgets, two attacks, four batches of which the last is smaller."""
    options = {"attack": ATTACKS, "eps": ["1/255", "3/255"], "batch_size": 6, "progress": False} | options
    data = corner_images() if data is None else data
    return evaluate(net or Corner(), data, state_dir=state_dir, **options)


def killed_at(state_dir: Path, operation: int, noise: float = 0.0) -> None:
    """An evaluation that dies by SIGKILL at its n-th operation; a write may be half done then.

    Operations are the clean verdicts, the attacks, and what brings files to the disk.
    """
    process = CONTEXT.Process(target=_die, args=(str(state_dir), operation, noise))
    process.start()
    process.join(400)
    assert process.exitcode == -signal.SIGKILL


def _die(state_dir: str, operation: int, noise: float) -> None:
    torch.set_num_threads(1)
    calls, chance = itertools.count(1), random.Random(operation)

    def deadly(module, name):
        real = getattr(module, name)

        def call(*args, **kwargs):
            if next(calls) == operation:
                if name == "fsync" and os.readlink(f"/proc/self/fd/{args[0]}").endswith(".jsonl"):
                    size = os.fstat(args[0]).st_size
                    os.ftruncate(args[0], size - chance.randrange(min(size, 200)))
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        setattr(module, name, call)

    for module, name in ((os, "fsync"), (os, "replace"), (runner, "judge_all"), (PGD, "run")):
        deadly(module, name)
    measure_corner(state_dir, Corner(noise))


def shorten_probes() -> None:
    """Fewer steps and queries of diagnostics than by default."""
    probes.MORE_STEPS, probes.QUERIES = 3, 5


def shared_by(processes: int, folder: Path, state_dir: Path, **options) -> list[str]:
    """What each of several processes measured together, as hashes."""
    started = [
        CONTEXT.Process(target=_share, args=(rank, processes, str(folder), str(state_dir), options))
        for rank in range(processes)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(400)
        assert process.exitcode == 0
    return [(folder / f"hash-{rank}").read_text() for rank in range(processes)]


def _share(rank: int, processes: int, folder: str, state_dir: str, options: dict) -> None:
    torch.set_num_threads(1)
    shorten_probes()
    meeting = f"file://{folder}/meeting"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=processes)
    Path(folder, f"hash-{rank}").write_text(records_hash(measure_corner(state_dir, **options)))
    torch.distributed.destroy_process_group()
