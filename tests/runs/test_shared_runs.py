"""A training run on two processes, which share the images of its evaluations too."""

from __future__ import annotations

import json
import socket

from run_child import CONTEXT, share

from hf_hierrobust import evaluate
from hf_hierrobust.evaluation import load_records

QUICK = {"eval_classifiers": "cosine", "eval_attack": "pgd-ce", "eval_num_steps": 1, "eval_batch": 4}


def found(records) -> list[tuple]:
    """What one process finds too."""
    return [(r.level, r.clean_accuracy, r.robust_accuracy, r.flags, r.cost, r.checks) for r in records]


def test_the_evaluations_of_a_run_are_shared_and_measure_what_one_process_does(
    tiny_clip_dir, data_dir, tmp_path
):
    options = {
        "model_name_or_path": tiny_clip_dir,
        "train_file": data_dir / "train.parquet",
        "eval_file": data_dir / "test.parquet",
        "tree": data_dir / "tiny.json",
        "output_dir": tmp_path / "out",
        "state_dir": tmp_path / "state",
        "max_steps": 1,
        "per_device_train_batch_size": 4,
        "figures": "false",
        "use_cpu": "true",
        "disable_tqdm": "true",
        **QUICK,
    }
    argv = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    logs = [tmp_path / f"log-{rank}" for rank in (0, 1)]
    started = [CONTEXT.Process(target=share, args=(rank, 2, port, argv, str(logs[rank]))) for rank in (0, 1)]
    for process in started:
        process.start()
    for process, log in zip(started, logs):
        process.join(300)
        assert process.exitcode == 0, log.read_text()[-3000:]
    for stage in ("base", "trained"):
        for rank in (0, 1):
            lines = (tmp_path / "state" / stage / f"verdicts-{rank}.jsonl").read_text().splitlines()
            assert {json.loads(line)["batch"] for line in lines} == {rank, 2 + rank}, (stage, rank)
    for path, file in ((tiny_clip_dir, "base.json"), (tmp_path / "out", "results.json")):
        measured = load_records(tmp_path / "out" / file)
        alone = evaluate(
            path,
            str(data_dir / "test.parquet"),
            attack="pgd-ce",
            num_steps=1,
            tree=str(data_dir / "tiny.json"),
            classifiers="cosine",
            batch_size=4,
            seed=42,
            progress=False,
        )
        assert len(measured) == 2 and found(measured) == found(alone), file
