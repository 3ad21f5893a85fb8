"""Training runs in processes that can be killed, forked from a server that has imported the stack."""

from __future__ import annotations

import importlib
import itertools
import multiprocessing
import os
import signal
import time
from pathlib import Path

from forked import CONTEXT


def work(argv: list[str], log: str, fatal: tuple[str, int] | None = None) -> None:
    """The command line on one thread, its words in a file; exit status 1 if it raises.

    Args:
        fatal: ``(module.function, n)``: the n-th call of that function is the process's end, by SIGKILL.
    """
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    import torch

    torch.set_num_threads(1)
    from hf_hierrobust.cli.train import main

    if fatal is not None:
        _die_in(*fatal)
    main(argv, objective="hier_robust")


def share(rank: int, count: int, port: int, argv: list[str], log: str) -> None:
    """`work` as one of several processes of a launcher."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    work(argv, log)


def _die_in(name: str, count: int) -> None:
    module, _, function = name.rpartition(".")
    module, calls = importlib.import_module(module), itertools.count(1)
    real = getattr(module, function)

    def deadly(*args, **kwargs):
        if next(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    setattr(module, function, deadly)


def start(argv: list[str], log: Path, fatal: tuple[str, int] | None = None) -> multiprocessing.Process:
    process = CONTEXT.Process(target=work, args=(argv, str(log), fatal))
    process.start()
    return process


def finish(argv: list[str], log: Path, timeout: float = 600) -> float:
    """Run to the end; returns the seconds it took."""
    begin = time.monotonic()
    process = start(argv, log)
    process.join(timeout)
    assert process.exitcode == 0, log.read_text()[-3000:]
    return time.monotonic() - begin


def kill_in(argv: list[str], log: Path, function: str, count: int = 1) -> None:
    """Let a run die by SIGKILL where it calls a function."""
    process = start(argv, log, (function, count))
    process.join(600)
    assert process.exitcode == -signal.SIGKILL, log.read_text()[-3000:]


def kill_after(argv: list[str], log: Path, seconds: float) -> bool:
    """SIGKILL a run after some seconds; whether it was still at work."""
    process = start(argv, log)
    process.join(seconds)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL
