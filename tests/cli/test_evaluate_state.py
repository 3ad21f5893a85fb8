"""The command `evaluate` goes on where it was killed, and tells another command from its own."""

from __future__ import annotations

import pytest

from hf_hierrobust.attacks import PGD
from hf_hierrobust.cli.evaluate import main
from hf_hierrobust.evaluation import load_records, records_hash

TRAINING = ("train_file", "max_steps", "per_device_train_batch_size", "learning_rate", "logging_steps")


def test_the_same_command_goes_on_and_another_is_refused(command, monkeypatch, capsys):
    output, attacked, run = command.options["output_dir"], [], PGD.run
    monkeypatch.setattr(PGD, "run", lambda *args: attacked.append(1) or run(*args))
    small = dict.fromkeys(TRAINING) | {"eval_batch": 6, "eval_classifiers": "cosine"}

    def measured(**changes) -> str:
        attacked.clear()
        main(command.argv(**small | changes))
        return records_hash(load_records(output / "results.json"))

    whole = measured()
    every = len(attacked)
    assert (measured(), attacked) == (whole, [])
    verdicts = output / "state" / "verdicts-0.jsonl"
    lines = verdicts.read_bytes().splitlines(keepends=True)
    verdicts.write_bytes(b"".join(lines[:5]) + lines[5][:30])
    (output / "results.json").unlink()
    assert measured() == whole and 0 < len(attacked) < every

    with pytest.raises(SystemExit):
        measured(seed=7)
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "holds verdicts of another evaluation (seed: 42 -> 7)" in said and attacked == []
    assert measured(seed=7, overwrite_output_dir="true") != whole and len(attacked) == every
    assert measured(overwrite_output_dir="true") == whole and len(attacked) == every
