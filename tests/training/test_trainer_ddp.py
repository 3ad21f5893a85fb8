"""Two processes train as one with twice the batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import ddp_worker
import pytest
import torch
from tiny_runs import checkpoint_weights, furthest, weights

from hf_hierrobust.modeling import RobustCLIPModel


@pytest.fixture(scope="module")
def ranks(tiny_clip_dir, tmp_path_factory):
    """What each of two ranks ended with, and the output folder."""
    folder = tmp_path_factory.mktemp("ddp")
    worker = str(Path(__file__).with_name("ddp_worker.py"))
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0"]
    launch += ["--standalone", worker, tiny_clip_dir, str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(launch, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    results = {
        name: [torch.load(folder / f"{name}-{rank}.pt", weights_only=True) for rank in (0, 1)]
        for name in ddp_worker.RUNS
    }
    return results, folder


@pytest.mark.parametrize("name", ddp_worker.RUNS)
def test_two_processes_equal_one_with_twice_the_batch(name, ranks, tiny_clip_dir, tmp_path):
    results, folder = ranks
    zero, one = results[name]
    assert furthest(zero["weights"], one["weights"]) == 0, "the ranks drifted apart"
    single, metrics = ddp_worker.run(name, tiny_clip_dir, tmp_path, processes=1)
    start = weights(RobustCLIPModel.from_pretrained(tiny_clip_dir))
    assert furthest(start, zero["weights"]) > 1e-3, "nothing was trained"
    assert furthest(weights(single.model), zero["weights"]) < 1e-5
    assert furthest(checkpoint_weights(folder / name), zero["weights"]) == 0
    for key, value in metrics.items():
        if key.endswith("_accuracy"):  # 21 images over two ranks in batches of 4: padding is cut off
            assert zero["metrics"][key] == pytest.approx(value)


def test_ranks_draw_different_random_starts(ranks):
    results, _ = ranks
    zero, one = results["tecoa"]
    assert not torch.equal(zero["random_start"], one["random_start"])
