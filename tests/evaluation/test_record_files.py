"""JSON lines: torn, repeated and contradictory ones are seen; files of many models merge without mixing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from example_records import PGD, make_record

from hf_hierrobust.evaluation.json_record import RecordFormatError
from hf_hierrobust.evaluation.record_files import (
    find_record_files,
    load_records,
    merge_records,
    read_records,
    record_line,
    save_records,
)

NAMED = make_record(sample_ids=make_record().sample_ids | {"how": "two\u2028lines, Größe"})


def test_lines_and_document_hold_the_same(tmp_path):
    records = [NAMED, make_record(seed=1)]
    for name in ("r.json", "r.jsonl"):
        save_records(tmp_path / name, records)
        assert load_records(tmp_path / name) == records
    assert (tmp_path / "r.jsonl").read_text(encoding="utf-8").count("\n") == 2


@pytest.mark.parametrize("cut", [1, 2, 40, -30])
def test_a_torn_last_line_is_named_and_the_others_are_kept(tmp_path, cut):
    path = tmp_path / "r.jsonl"
    first, second = record_line(NAMED), record_line(make_record(seed=1))
    path.write_text(first + second[:cut], encoding="utf-8")
    with pytest.raises(RecordFormatError, match=r"r\.jsonl, line 2, the last, is cut off: delete it"):
        load_records(path)
    found = read_records(path)
    assert found.records == [NAMED] and merge_records([found])[1] == [f"{found.torn}: it is left out."]
    path.write_text(first + second.rstrip("\n"), encoding="utf-8")  # whole but for its end
    assert len(load_records(path)) == 2


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda e: e | {"version": 2}, "line 1 has schema .* version 2"),
        (lambda e: {"records": []}, "line 1 has schema None"),
        (lambda e: e | {"record": e["record"] | {"robust_accuracy": 0.9}}, "line 1: robust_accuracy=0.9"),
        (lambda e: e | {"record": e["record"] | {"extra": 1}}, r"line 1: record lacks \[\].*\['extra'\]"),
        (lambda e: e | {"record": e["record"] | {"seed": "0"}}, "line 1: seed='0' must be an integer"),
        (lambda e: e | {"record": e["record"] | {"attack": "pgd"}}, "line 1: attack='pgd' must be an object"),
        (lambda e: e | {"record": e["record"] | {"tree_hash": 3}}, "line 1: tree_hash=3 must be text"),
        (lambda e: e | {"record": e["record"] | {"intervals": {"clean": [0, 1]}}}, "is not the Wilson"),
        (lambda e: e | {"record": None}, "a record is a JSON object, got NoneType"),
        (lambda e: [e], "line 1 has schema None"),
    ],
)
def test_a_line_that_is_no_record_is_refused_with_its_place(tmp_path, spoil, message):
    path = tmp_path / "r.jsonl"
    document = json.loads(record_line(NAMED))
    path.write_text(json.dumps(spoil(document)) + "\n" + record_line(NAMED), encoding="utf-8")
    with pytest.raises(RecordFormatError, match=message):
        load_records(path)


def test_damage_before_the_last_line_is_an_error(tmp_path):
    path = tmp_path / "r.jsonl"
    line = record_line(NAMED)
    path.write_text(line[:50] + "\n" + line, encoding="utf-8")
    with pytest.raises(RecordFormatError, match=r"line 1 is not JSON"):
        read_records(path)
    path.write_bytes(line.encode() + b"\xff\xfe\n")
    with pytest.raises(RecordFormatError, match="no UTF-8"):
        read_records(path)


def test_the_same_measurement_counts_once_and_the_newer_of_two_that_differ(tmp_path):
    one = make_record(created="2026-01-01", flags=None)
    again = replace(one, created="2026-02-01", wall_seconds=9.0, base=None)
    other = replace(one, created="2026-03-01", robust_accuracy=0.4, intervals={})
    elsewhere = replace(one, attack=PGD | {"eps": 1 / 255})
    for name, records in {"a.jsonl": [one, elsewhere], "b.jsonl": [again], "c.jsonl": [other]}.items():
        save_records(tmp_path / name, records)
    files = [read_records(tmp_path / name) for name in ("a.jsonl", "b.jsonl", "c.jsonl")]
    merged, notes = merge_records(files)
    assert merged == [other, elsewhere]
    assert len(notes) == 2 and "41.0 % robust in a.jsonl, 40.0 % in c.jsonl; the newer one counts" in notes[0]
    assert notes[1] == "1 records were there more than once, and count once."
    assert merge_records(files[::-1])[0][0] == other


def test_what_a_folder_stands_for(tmp_path):
    save_records(tmp_path / "run/results.json", [NAMED])
    save_records(tmp_path / "run/base.json", [NAMED])
    save_records(tmp_path / "suite/records/model.jsonl", [NAMED])
    assert [f.name for f in find_record_files(tmp_path)] == ["results.json", "model.jsonl"]
    assert find_record_files(tmp_path / "run/base.json") == [tmp_path / "run/base.json"]
    (tmp_path / "empty").mkdir()
    for path, says in ((tmp_path / "empty", "holds no results.json"), (tmp_path / "gone", "is no file")):
        with pytest.raises(FileNotFoundError, match=says):
            find_record_files(path)


def merged(tmp_path, *records):
    for place, one in enumerate(records):
        save_records(tmp_path / f"{place}.jsonl", [one])
    return merge_records([read_records(tmp_path / f"{place}.jsonl") for place in range(len(records))])


def defended(blind: float, created: str, robust=0.3, **constants):
    defence = {"name": "ttc", "eps": 4 / 255, "threshold": 0.2, "eot": 10} | constants
    defence |= {"undefended_clean": 0.6, "undefended_robust": 0.3, "adaptive_robust": 0.4}
    defence["blind_robust"] = blind
    return make_record(base=None, defence=defence, robust_accuracy=robust, created=created)


@pytest.mark.parametrize("turn", [1, -1])
def test_a_defended_measurement_is_one_by_its_constants_alone(tmp_path, turn):
    old, new = defended(0.45, "2026-01-01", robust=0.2), defended(0.35, "2026-03-01")
    found, notes = merged(tmp_path, *[old, new][::turn])
    assert found == [new] and "cosine + ttc" in notes[0] and "the newer one counts" in notes[0]
    same = defended(0.35, "2026-01-01")  # as robust, but what was measured of the defence is not the same
    assert "(defence)" in merged(tmp_path, *[replace(same, defence=old.defence), new][::turn])[1][0]
    for other in ({"threshold": 0.05}, {"eot": 50}):
        both = [new, defended(0.45, "2026-01-01", **other)][::turn]
        assert merged(tmp_path, *both) == (both, [])


@pytest.mark.parametrize("turn", [1, -1])
def test_of_equal_records_the_one_that_says_most_is_kept(tmp_path, turn):
    """A base beside a record is a row of the leaderboard."""
    full = make_record(created="2026-01-01", tree="trees/a", tree_hash="e" * 16)
    counted = full.sample_ids | {"shared_with_training": 3}
    bare = replace(full, base=None, created="2026-02-01", tree="a", sample_ids=counted)
    found, notes = merged(tmp_path, *[full, bare][::turn])
    assert found == [full] and "count once" in notes[0]
    other = replace(full, base=full.base | {"robust_accuracy": 0.1, "intervals": {}}, created="2026-03-01")
    found, notes = merged(tmp_path, *[full, other][::turn])
    assert found == [other] and "other results (base)" in notes[0]
