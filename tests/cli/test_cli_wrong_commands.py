"""A hundred wrong command lines: each is answered by one specific sentence, exit status 2, nothing written.

They run in this process, where torch is imported already. ``HF_HIERROBUST_PROCESSES=1`` starts a process for
each instead and holds it to ten seconds of CPU, which imports of the stack take on a busy machine.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hf_hierrobust.cli.main import main

LINES = json.loads(Path(__file__).with_name("wrong_commands.json").read_text())
PROCESSES = bool(os.environ.get("HF_HIERROBUST_PROCESSES"))
SECONDS = float(os.environ.get("HF_HIERROBUST_SECONDS", "10"))


@pytest.fixture(scope="module")
def places(tiny_clip_dir, data_dir, tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("wrong")
    files = {
        "text.txt": "not images",
        "torn.parquet": "PAR1 and then nothing",
        "broken.json": '{"cat": ["animal"',
        "faulty.py": "undefined + 1\n",
        "list.yaml": "- eps\n- 1/255\n",
        "typo.yaml": "learning_rte: 0.1\n",
        "torn.yaml": "eps: [1\n",
        "bool.yaml": "eval_strategy: no\n",
        "nested.yaml": "eps: [1/255, 2/255]\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    return {"model": tiny_clip_dir, "data": data_dir, "dir": folder}


@pytest.mark.parametrize("case", LINES, ids=[f"{i}" for i in range(len(LINES))])
def test_kind26_a_wrong_command_line_is_answered_by_one_sentence(case, places, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # a run without output_dir would write here
    before = sorted(places["dir"].rglob("*"))
    argv = shlex.split(case["line"])
    for name, place in (*places.items(), ("out", tmp_path / "out")):
        argv = [word.replace(f"{{{name}}}", str(place)) for word in argv]
    said = (_in_a_process if PROCESSES else _here)(argv, capsys)
    last = said.strip().splitlines()[-1]
    assert last.startswith("hf-hierrobust") and ": error: " in last, said
    assert re.search(case["says"].replace("{{}}", r"\{\}"), last), last
    assert "Traceback" not in said
    assert sum("error" in line for line in said.splitlines()) == 1, said
    assert not list(tmp_path.rglob("*")) and sorted(places["dir"].rglob("*")) == before, (
        "something was written"
    )


def _here(argv: list[str], capsys) -> str:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    return capsys.readouterr().err


def _in_a_process(argv: list[str], capsys) -> str:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "hf_hierrobust", *argv],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert done.returncode == 2, done.stderr[-600:]
    assert spent < SECONDS, f"{spent:.1f} s of CPU"
    return done.stderr


def test_there_are_a_hundred():
    assert len({case["line"] for case in LINES}) == len(LINES) >= 100
