"""Diagnostics of an evaluation: kept by a state directory, shared out among processes."""

from __future__ import annotations

import pytest
from state_child import measure_corner, shared_by, shorten_probes

from hf_hierrobust.attacks import NoGradientError
from hf_hierrobust.evaluation import checkups, probes, records_hash

WITH_CHECKS = {"attack": "pgd-ce", "num_steps": 1, "checks": True, "batch_size": 22}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """As the processes of `shared_by` do."""
    for name in ("MORE_STEPS", "QUERIES"):
        monkeypatch.setattr(probes, name, getattr(probes, name))  # put back afterwards
    shorten_probes()


@pytest.fixture()
def diagnosed(monkeypatch) -> list[float]:
    """Budgets at which a classifier is diagnosed from now on."""
    seen, run = [], checkups.diagnose

    def counted(probed):
        seen.append(round(probed.attacks[0].eps * 255))
        return run(probed)

    monkeypatch.setattr(checkups, "diagnose", counted)
    return seen


def test_what_was_diagnosed_is_not_diagnosed_again(diagnosed, tmp_path, monkeypatch):
    whole = measure_corner(**WITH_CHECKS)
    assert diagnosed == [1, 3] and whole[0].checks["diagnosed"]["images"] == 22
    state, diagnosed[:] = tmp_path / "state", []

    def killed(probed, run=checkups.diagnose):
        if len(diagnosed) == 1:
            raise NoGradientError("as if killed here")
        return run(probed)

    with monkeypatch.context() as patch:
        patch.setattr(checkups, "diagnose", killed)
        with pytest.raises(NoGradientError):
            measure_corner(state, **WITH_CHECKS)
    assert records_hash(measure_corner(state, **WITH_CHECKS)) == records_hash(whole)
    assert diagnosed == [1, 3]
    notes = state / "notes-0.jsonl"
    notes.write_text(notes.read_text()[:-9])  # the last line is torn
    assert records_hash(measure_corner(state, **WITH_CHECKS)) == records_hash(whole)
    assert diagnosed == [1, 3, 3]


def test_processes_share_the_diagnostics(tmp_path):
    whole = records_hash(measure_corner(**WITH_CHECKS))
    assert shared_by(2, tmp_path, tmp_path / "state", **WITH_CHECKS) == [whole] * 2
    assert all((tmp_path / "state" / f"notes-{rank}.jsonl").read_text() for rank in range(2))
