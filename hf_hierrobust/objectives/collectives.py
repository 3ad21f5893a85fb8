"""Sums and gathers over processes that gradients flow through.

Every rank's loss depends on what this rank contributed, so its gradient is the sum of what all ranks send
back; DDP's average over ranks then gives exactly the gradient of the average loss.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Sum of a tensor over all processes; the tensor itself in a single process."""
    return _SumOverRanks.apply(tensor) if _world_size() > 1 else tensor


def gather_over_ranks(rows: Tensor) -> Tensor:
    """Rows (B, ...) of all processes, those of rank 0 first; the tensor itself in a single process.

    Ranks may hold different numbers of rows. Integers are gathered as well, without gradients.
    """
    if _world_size() == 1:
        return rows
    sizes = torch.zeros(_world_size(), dtype=torch.long, device=rows.device)
    sizes[rank()] = len(rows)
    dist.all_reduce(sizes)
    sizes = sizes.tolist()
    # Every rank fills its own place among zeros: the sum over ranks is the gather, and so is its gradient.
    before, after = sum(sizes[: rank()]), sum(sizes[rank() + 1 :])
    placed = [rows.new_zeros(before, *rows.shape[1:]), rows, rows.new_zeros(after, *rows.shape[1:])]
    return sum_over_ranks(torch.cat(placed))


def rank() -> int:
    """Number of this process, 0 in a single one."""
    return dist.get_rank() if _world_size() > 1 else 0


def _world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
