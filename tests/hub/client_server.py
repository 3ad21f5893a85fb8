"""Forks clients of the local Hub from a process that has imported the stock libraries once for all tests.

huggingface_hub, transformers and datasets read endpoint and cache folder when they are imported, so this
process starts with both in its environment; nothing of this package is imported before a fork. A line of JSON
comes in for each client, and the line with its exit status goes out when it has ended.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys

STOCK = (
    "accelerate",
    "datasets",
    "peft",
    "PIL.Image",
    "safetensors.torch",
    "scipy.stats",
    "torch",
    "transformers.models.auto.modeling_auto",
    "transformers.models.clip.modeling_clip",
    "transformers.pipelines",
    "transformers.trainer",
)


def serve() -> dict:
    """Fork for each request; returns in the children, with their request, and at the end of the input."""
    for line in sys.stdin:
        if pid := os.fork():
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
        else:
            return json.loads(line)
    return {}


def become(request: dict) -> None:
    """Take the client's folder, environment and streams, and run its code as a fresh Python would."""
    streams = (
        (os.devnull, os.O_RDONLY),
        *((path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for path in request["streams"]),
    )
    for number, (path, flags) in enumerate(streams):
        os.dup2(os.open(path, flags), number)
    os.chdir(request["cwd"])
    os.environ |= request["env"]
    signal.alarm(request["timeout"])
    exec(compile(request["code"], "<client>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    sys.path[0] = ""  # as for python -c
    for name in STOCK:
        importlib.import_module(name)
    if request := serve():
        become(request)
