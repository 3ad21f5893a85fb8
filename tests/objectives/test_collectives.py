"""Sums and gathers of two gloo processes against a single one, values and gradients."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import collectives_worker as worker
import pytest
import torch

from hf_hierrobust.objectives.collectives import gather_over_ranks, rank, sum_over_ranks


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("gloo")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                worker.__file__,
                str(number),
                str(folder / "meet"),
                str(folder / f"{number}.pt"),
            ],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in (0, 1)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=900)
        assert process.returncode == 0, errors[-3000:]
    return [torch.load(Path(folder) / f"{number}.pt", weights_only=True) for number in (0, 1)]


def test_a_gather_holds_the_rows_of_all_ranks_in_order(ranks):
    for result in ranks:
        assert torch.equal(result["gather"]["rows"], worker.values())
        assert result["gather"]["numbers"].tolist() == [0, 1, 2, 3, 4]


def test_a_gathers_gradient_is_what_all_ranks_send_back(ranks):
    expected = worker.weights_of(0) + worker.weights_of(1)
    for number, result in enumerate(ranks):
        assert torch.equal(result["gather"]["gradient"], expected[worker.ROWS[number]])


def test_a_sum_and_its_gradient(ranks):
    for result in ranks:
        assert torch.equal(result["gather"]["sum"], worker.values()[0] + worker.values()[1])
        expected = worker.weights_of(0)[0] + worker.weights_of(1)[0]
        assert torch.equal(result["gather"]["sum gradient"], expected)


@pytest.mark.parametrize("name", worker.OBJECTIVES)
def test_two_processes_train_as_one_with_both_halves(name, ranks):
    """DDP averages the gradients of the parameters; an image's gradient is its own process's."""
    halves, whole = [result["steps"][name] for result in ranks], worker.step(name, slice(None))
    if name == "this process only":
        assert abs(float(sum(half["loss"] for half in halves) / 2 - whole["loss"])) > 0.1
        return
    for key in ("loss", "encoder", "scale"):
        torch.testing.assert_close(sum(half[key] for half in halves) / 2, whole[key], atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(torch.cat([half["images"] for half in halves]), whole["images"])
    assert float(whole["encoder"].abs().max()) > 1e-2 and float(whole["images"].abs().max()) > 1e-2


def test_a_single_process_gathers_itself():
    rows = torch.randn(3, 2)
    assert gather_over_ranks(rows) is rows and sum_over_ranks(rows) is rows and rank() == 0
