"""Processes that can be killed, forked from a server that has imported the stack once for all tests."""

from __future__ import annotations

import multiprocessing

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "hf_hierrobust.cli.train",
        "hf_hierrobust.cli.checks",
        "hf_hierrobust.runs.train",
        "matplotlib.backends.backend_agg",
        "scipy.stats",
        "transformers.models.clip.modeling_clip",
    ]
)
