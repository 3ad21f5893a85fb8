"""Records: round trips, refusals of contradictory numbers, atomic files."""

from __future__ import annotations

import json
import os
from dataclasses import FrozenInstanceError
from datetime import datetime

import numpy as np
import pytest
import torch
from example_records import PGD, make_record

from hf_hierrobust.evaluation.flags import class_counts, pack_flags, unpack_flags
from hf_hierrobust.evaluation.json_record import RecordFormatError
from hf_hierrobust.evaluation.metrics import wilson_interval
from hf_hierrobust.evaluation.record_files import load_records, save_records
from hf_hierrobust.evaluation.records import (
    RobustnessRecord,
    describe_samples,
    environment_versions,
)
from hf_hierrobust.naming import public_name
from hf_hierrobust.threat import format_eps


def test_flags_must_add_up_to_the_accuracies():
    right = torch.arange(200) < 124
    flags = {"clean": pack_flags(right), "robust": pack_flags(torch.arange(200) < 82)}
    record = RobustnessRecord.from_dict(make_record(flags=flags).to_dict())
    assert torch.equal(unpack_flags(record.flags["clean"], 200), right)
    with pytest.raises(ValueError, match=r"flags\['robust'\] says 124 of 200 images are right.*says 82"):
        make_record(flags=flags | {"robust": flags["clean"]})
    with pytest.raises(ValueError, match="exactly 'clean' and 'robust'"):
        make_record(flags={"clean": flags["clean"]})


def test_counts_of_the_classes_must_add_up():
    labels = torch.arange(200) % 4
    clean, robust = torch.arange(200) < 124, torch.arange(200) < 82
    classes = class_counts(list("abcd"), labels, clean, robust)
    assert classes == {
        "names": list("abcd"),
        "images": [50] * 4,
        "clean": [31] * 4,
        "robust": [21, 21, 20, 20],
    }
    assert make_record(classes=classes).classes == classes
    for change, message in (
        ({"robust": [22, 21, 20, 20]}, "classes.robust add up to 83, not to 82"),
        ({"images": [50] * 3}, "of one length"),
        ({"clean": [21, 41, 31, 31], "robust": [22, 20, 20, 20]}, "more images right under attack"),
        ({"clean": [31.0] * 4}, "whole numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            make_record(classes=classes | change)


@pytest.mark.parametrize("n", [1, 7, 8, 9, 200])
def test_flags_come_back_as_they_were(n):
    flags = torch.rand(n, generator=torch.Generator().manual_seed(n)) < 0.5
    text = pack_flags(flags)
    assert len(text) == 2 * -(-n // 8) and torch.equal(unpack_flags(text, n), flags)
    with pytest.raises(ValueError, match=r"bytes; .* images need"):
        unpack_flags(text, n + 9)
    with pytest.raises(ValueError, match="not hexadecimal"):
        unpack_flags("xy", n)


def test_record_fills_in_what_follows_from_the_rest():
    record = make_record()
    assert record.attack["eps_text"] == "4/255"
    assert record.intervals == {
        "clean": list(wilson_interval(124, 200)),
        "robust": list(wilson_interval(82, 200)),
    }
    assert record.base["intervals"]["robust"] == list(wilson_interval(0, 200))
    assert record.versions == environment_versions()
    assert record.versions["torch"] == torch.__version__ and set(record.versions) == {
        "python",
        "torch",
        "transformers",
        "hf_hierrobust",
    }
    assert datetime.fromisoformat(record.created).tzinfo is not None
    assert "eps_text" not in PGD  # the caller's dict is left alone
    with pytest.raises(FrozenInstanceError):
        record.seed = 1


def test_dict_round_trip_through_json():
    record = make_record(tree="cifar10", tree_hash="ab12", templates_hash="cd34", model_hash="ef56")
    assert RobustnessRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_foreign_scalars_become_json_types():
    record = make_record(
        clean_accuracy=torch.tensor(0.625, dtype=torch.float32),
        robust_accuracy=np.float64(0.405),
        num_samples=np.int64(200),
        checks={"curve": torch.tensor([0.5, 0.25]), "rate": float("nan"), "passed": np.bool_(True)},
    )
    assert json.loads(json.dumps(record.to_dict(), allow_nan=False))["checks"] == {
        "curve": [0.5, 0.25],
        "rate": None,
        "passed": True,
    }
    assert type(record.num_samples) is int and record.clean_accuracy == 0.625


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clean_accuracy": 62.0}, "clean_accuracy=62.0 must be a fraction"),
        ({"clean_accuracy": -0.1}, "clean_accuracy=-0.1"),
        ({"clean_accuracy": 0.6217}, "not a count over num_samples=200"),
        ({"robust_accuracy": 0.7}, "robust_accuracy=0.7 exceeds clean_accuracy=0.62"),
        ({"robust_accuracy": float("nan")}, "robust_accuracy=nan is not finite"),
        ({"num_samples": 0}, "num_samples=0 must be an integer >= 1"),
        ({"num_samples": 100}, "count equal to num_samples=100"),
        ({"sample_ids": {"count": 200}}, "must hold sha256"),
        ({"level": -1}, "level=-1"),
        ({"classifier": ""}, "classifier=''"),
        ({"model": "/home/me/run"}, "model='/home/me/run' is a path of this machine"),
        ({"dataset": "./data"}, "dataset='./data' is a path"),
        ({"base": {"clean_accuracy": 0.9}}, r"base lacks \['robust_accuracy'\]"),
        ({"base": {"clean_accuracy": 0.1, "robust_accuracy": 0.2}}, "base.robust_accuracy=0.2 exceeds"),
        ({"base": {"clean_accuracy": 0.5, "robust_accuracy": 0, "num_samples": 10}}, "base.num_samples=10"),
        ({"base": {"clean_accuracy": 0.5, "robust_accuracy": 0, "model": "~/clip"}}, "base.model='~/clip'"),
        ({"attack": {"name": "pgd", "norm": "linf"}}, r"attack lacks \['eps', 'space'\]"),
        ({"attack": PGD | {"space": "latent"}}, "attack.space='latent'"),
        ({"attack": PGD | {"eps": "4/255"}}, "attack.eps='4/255' must be a number"),
        ({"attack": PGD | {"eps_text": "8/255"}}, "contradicts attack.eps"),
        ({"attack": PGD | {"norm": "l1", "eps_text": "4/255"}}, "attack.norm='l1' is unknown; choose"),
        ({"created": "yesterday"}, "created='yesterday'"),
        ({"wall_seconds": -1.0}, "wall_seconds=-1.0"),
    ],
)
def test_contradictory_records_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_record(**changes)


def test_objects_json_cannot_keep_are_refused():
    with pytest.raises(TypeError, match=r"attack\.loss holds a function"):
        make_record(attack=PGD | {"loss": torch.nn.functional.cross_entropy})


def test_base_may_be_absent_and_worst_case_may_tie():
    record = make_record(base=None, robust_accuracy=0.62)
    assert record.base is None and record.robust_accuracy == record.clean_accuracy


def test_file_round_trip(tmp_path):
    records = [make_record(), make_record(level=1, level_name="superclass", classifier="rollup", base=None)]
    path = tmp_path / "new" / "records.json"
    save_records(path, records)
    assert load_records(path) == records
    save_records(path, records[:1])
    assert load_records(path) == records[:1]
    assert os.listdir(path.parent) == ["records.json"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / "records.json"
    save_records(path, [make_record()])
    before = path.read_bytes()

    def crash(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, step, crash)
    with pytest.raises(OSError, match="disk full"):
        save_records(path, [make_record(seed=1)])
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["records.json"]


def test_unreadable_files_name_their_fault(tmp_path):
    path = tmp_path / "records.json"
    save_records(path, [make_record(), make_record(seed=1)])
    whole = path.read_text()

    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(RecordFormatError, match=r"records\.json is not JSON"):
        load_records(path)

    path.write_text(json.dumps(json.loads(whole) | {"version": 99}))
    with pytest.raises(RecordFormatError, match="version 99"):
        load_records(path)

    path.write_text("[]")
    with pytest.raises(RecordFormatError, match="schema None"):
        load_records(path)

    document = json.loads(whole)
    document["records"][1]["robust_accuracy"] = 0.99
    path.write_text(json.dumps(document))
    with pytest.raises(RecordFormatError, match=r"record 1: robust_accuracy=0\.99"):
        load_records(path)

    del document["records"][1]["seed"]
    document["records"][1]["sead"] = 0
    path.write_text(json.dumps(document))
    with pytest.raises(RecordFormatError, match=r"lacks \['seed'\] and has unknown \['sead'\]"):
        load_records(path)

    with pytest.raises(FileNotFoundError):
        load_records(tmp_path / "absent.json")


def test_public_name(tmp_path):
    assert public_name("openai/clip-vit-base-patch32") == "openai/clip-vit-base-patch32"
    assert public_name(str(tmp_path / "run-7")) == "run-7"
    assert public_name(str(tmp_path / "run-7") + "/") == "run-7"
    assert public_name("../outputs/run-7") == "run-7"
    assert public_name("outputs/glyphs/run-7") == "run-7"
    assert make_record(model=public_name(str(tmp_path))).model == tmp_path.name


def test_sample_hash_follows_ids_and_order():
    first = describe_samples([3, 1, 2], "by hand")
    assert first == describe_samples(["3", "1", "2"], "by hand") and first["count"] == 3
    assert first["sha256"] != describe_samples([1, 2, 3], "by hand")["sha256"]
    assert describe_samples([1, 23], "")["sha256"] != describe_samples([12, 3], "")["sha256"]
    for bad in ([], [1, 1]):
        with pytest.raises(ValueError, match="distinct"):
            describe_samples(bad, "by hand")


def test_budgets_are_written_as_papers_write_them():
    assert format_eps(4 / 255) == "4/255"
    assert make_record(attack=PGD | {"norm": "l2", "eps": 0.5}).attack["eps_text"] == "0.5"
