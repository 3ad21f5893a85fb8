"""Diagnostics of an evaluation: kept by a state directory, shared out among processes."""

from __future__ import annotations

import pytest
import torch
from state_child import Corner, corner_images, measure_corner, shared_by, shorten_probes

from hf_hierrobust.attacks import NoGradientError
from hf_hierrobust.classifiers import network_classifiers
from hf_hierrobust.data import ClassSet
from hf_hierrobust.evaluation import AttackPlan, EvaluationSet, checkups, probes, records_hash
from hf_hierrobust.evaluation.measure import measure
from hf_hierrobust.evaluation.targets import Target

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


@pytest.mark.parametrize("chosen", [[*range(70, 0, -1)], [5, 3, 8], None])
def test_a_part_of_the_measured_images_is_probed(chosen, monkeypatch):
    """Also where the rows were chosen by whoever evaluates, and are more than are probed."""
    probed, run = [], checkups.diagnose
    monkeypatch.setattr(checkups, "diagnose", lambda one: (probed.append(one), run(one))[1])
    images, net = corner_images(80), Corner()
    data = EvaluationSet(
        name="corner",
        dataset=images,
        class_set=ClassSet.from_names(["a", "b", "c", "d"], name="corner"),
        num_samples=None if chosen else 75,
        chosen=chosen and (chosen, "by hand"),
    )
    (record,) = measure(
        [Target(data=data, found=network_classifiers(net, 4, None))],
        AttackPlan.of("pgd-ce", "2/255", num_steps=1, random_start="zero", besides={"checks": True}),
        {"model": "corner", "objective": "none", "model_hash": None, "seed": 0},
    )
    count = min(probes.IMAGES, len(data.rows))
    assert record.num_samples == len(data.rows) and record.checks["diagnosed"]["images"] == count
    measured = {tuple((images[row][0] / 255).flatten().tolist()) for row in data.rows}
    found = [tuple(image.flatten().tolist()) for image in probed[0].pixels]
    assert len(set(found)) == count and set(found) <= measured
    (attack,), pixels, labels = probed[0].attacks, probed[0].pixels, probed[0].labels
    assert torch.equal(probed[0].standing, attack(net, pixels, labels).robust_correct)
    if count > 3:
        assert 0 < probed[0].standing.sum() < count
