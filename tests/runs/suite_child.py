"""The suite in two processes that share the batches."""

from __future__ import annotations

from pathlib import Path

import torch
from forked import CONTEXT

from hf_hierrobust.runs.suite import SuiteRequest, evaluate_suite


def shared_by_two(folder: Path, models: list[str], sets: dict, request: dict) -> None:
    """Run the suite into ``folder / "out"``."""
    started = [
        CONTEXT.Process(target=_share, args=(rank, str(folder), models, sets, request)) for rank in range(2)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(240)
        assert process.exitcode == 0


def _share(rank: int, folder: str, models: list[str], sets: dict, request: dict) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    found = evaluate_suite(
        models, Path(folder, "out"), sets, SuiteRequest(**request), progress=False, figures=False
    )
    assert (found is None) == (rank == 1)
    torch.distributed.destroy_process_group()
