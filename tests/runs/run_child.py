"""Training runs in processes that can be killed, forked from a server that has imported the stack."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["run_child", "hf_hierrobust.cli.train", "hf_hierrobust.reports.plots"])


def work(argv: list[str], log: str) -> None:
    """The command line on one thread, its words in a file; exit status 1 if it raises."""
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    import torch

    torch.set_num_threads(1)
    from hf_hierrobust.cli.train import main

    main(argv, objective="hier_robust")


def start(argv: list[str], log: Path) -> multiprocessing.Process:
    process = CONTEXT.Process(target=work, args=(argv, str(log)))
    process.start()
    return process


def finish(argv: list[str], log: Path, timeout: float = 120) -> float:
    """Run to the end; returns the seconds it took."""
    begin = time.monotonic()
    process = start(argv, log)
    process.join(timeout)
    assert process.exitcode == 0, log.read_text()[-3000:]
    return time.monotonic() - begin


def kill_after(argv: list[str], log: Path, seconds: float) -> bool:
    """SIGKILL a run after some seconds; whether it was still at work."""
    process = start(argv, log)
    process.join(seconds)
    process.kill()
    process.join()
    return process.exitcode == -9
