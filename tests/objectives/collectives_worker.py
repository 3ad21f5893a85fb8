"""One rank of two for `test_collectives`: <rank> <rendezvous file> <output file>."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from pair_batch import CLASSES, DIM, PairBatch

from hf_hierrobust.objectives import AdvFLYP, MMCoA
from hf_hierrobust.objectives.collectives import gather_over_ranks, sum_over_ranks

OBJECTIVES = {
    "mmcoa": MMCoA(),
    "mmcoa, diagonal": MMCoA(positives="diagonal"),
    "advflyp": AdvFLYP(positives="class"),
    "this process only": MMCoA(gather_negatives=False),
}
ENCODED = ("attacked", "clean", "captions", "attacked_captions", "original_attacked")
ROWS = {0: slice(0, 2), 1: slice(2, 5)}  # of five rows, so that the ranks differ
HALVES = {0: slice(0, 3), 1: slice(3, 6)}


def values() -> torch.Tensor:
    return torch.randn(5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def weights_of(rank: int) -> torch.Tensor:
    """Each rank's loss weighs the gathered rows in its own way."""
    return torch.randn(5, 2, generator=torch.Generator().manual_seed(10 + rank), dtype=torch.float64)


def gather(rank: int) -> dict:
    rows = values()[ROWS[rank]].requires_grad_()
    gathered, numbers = gather_over_ranks(rows), gather_over_ranks(torch.arange(5)[ROWS[rank]])
    (gradient,) = torch.autograd.grad((gathered * weights_of(rank)).sum(), rows)
    summand = values()[rank].requires_grad_()
    total = sum_over_ranks(summand)
    (sum_gradient,) = torch.autograd.grad((total * weights_of(rank)[0]).sum(), summand)
    return {
        "rows": gathered.detach(),
        "numbers": numbers,
        "gradient": gradient,
        "sum": total.detach(),
        "sum gradient": sum_gradient,
    }


def step(name: str, rows: slice) -> dict:
    """Loss, its gradients for a shared encoder and the logit scale, the attack's gradient for the images."""
    objective, batch = OBJECTIVES[name], PairBatch("own")
    objective.setup(CLASSES)
    generator = torch.Generator().manual_seed(2)
    encoder = torch.eye(DIM, dtype=torch.float64) + 0.2 * torch.randn(
        DIM, DIM, generator=generator, dtype=torch.float64
    )
    encoder.requires_grad_()
    batch.labels = batch.labels[rows]
    for side in ENCODED:
        setattr(batch, side, getattr(batch, side).detach()[rows] @ encoder)
    batch.original_attacked = batch.original_attacked.detach()
    batch.original_captions = batch.original_captions.detach()[rows]  # the original is another encoder
    loss = sum(objective.loss([batch.view()], batch.targets()).values())
    encoder_gradient, scale_gradient = torch.autograd.grad(loss, [encoder, batch.scale], retain_graph=True)
    inner = objective.inner_loss(batch.view(nodes=True), batch.targets())
    (image_gradient,) = torch.autograd.grad(inner.sum(), batch.attacked)
    return {
        "loss": loss.detach(),
        "encoder": encoder_gradient,
        "scale": scale_gradient,
        "images": image_gradient,
    }


def main(rank: int, rendezvous: str, output: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=Path(rendezvous).as_uri(), rank=rank, world_size=2)
    results = {name: step(name, HALVES[rank]) for name in OBJECTIVES}
    torch.save({"gather": gather(rank), "steps": results}, output)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
