"""The Markdown table of records, and the short names of attacks."""

from __future__ import annotations

from dataclasses import replace

import pytest
from example_records import make_record

from hf_hierrobust.reports import attack_label, records_table


def test_a_table_shows_what_tells_attacks_apart():
    one = make_record().attack
    other = one | {"eps": 1 / 255, "eps_text": "1/255", "step_size": 0.25 / 255}
    table = records_table([make_record(), make_record(attack=other)])
    assert "| eps 4/255, step 1/255 |" in table and "| eps 1/255, step 0.25/255 |" in table
    assert "Attacks pgd-20, linf;" in table
    same = records_table([make_record(), make_record(attack=one | {"restarts": 2})])
    assert "| pgd-20, linf, eps 4/255, step 1/255, 2 restarts |" in same, "one is told apart by nothing"


def test_attacks_have_a_short_name():
    attack = make_record().attack
    assert attack_label(attack) == "pgd-20, linf, eps 4/255, step 1/255"
    worst = attack_label(attack | {"loss": "ce+margin", "restarts": 2})
    assert worst == "pgd-20 (ce+margin), linf, eps 4/255, step 1/255, 2 restarts"
    restarted = make_record(
        attack={"name": "apgd-ce", "norm": "linf", "eps": 1 / 255, "space": "model", "restarts": 5}
    )
    assert attack_label(restarted.attack) == "apgd-ce, linf, eps 1/255, 5 restarts"


def test_table_before_and_after():
    records = [
        make_record(),
        make_record(level=1, level_name="superclass", num_classes=2, classifier="rollup"),
    ]
    lines = records_table(records).splitlines()
    assert lines[0] == "| Level | Classifier | Clean before | Clean after | Robust before | Robust after |"
    assert lines[2] == (
        "| leaf (10) | cosine | 90.0 [85.1, 93.4] | 62.0 [55.1, 68.4] | 0.0 [0.0, 1.9] | 41.0 [34.4, 47.9] |"
    )
    assert lines[3].startswith("| superclass (2) | rollup |")
    assert "uoft-cs/cifar10 (test)" in lines[-1] and "pgd-20, linf, eps 4/255" in lines[-1]
    assert "images 200" in lines[-1] and "95 % Wilson" in lines[-1]


def test_table_marks_classes_of_unequal_size():
    level = {"level": 1, "level_name": "superclass", "num_classes": 3, "base": None}
    classes = {
        "names": ["mammal", "fish", "bird"],
        "images": [160, 30, 10],
        "clean": [112, 12, 0],
        "robust": [80, 2, 0],
    }
    record = make_record(**level, classes=classes)
    assert record.balanced == pytest.approx({"clean": (0.7 + 0.4) / 3, "robust": (0.5 + 2 / 30) / 3})
    table = records_table([record, make_record(base=None)])
    assert table.count("§") == 3, "both accuracies of the row, and the sentence"
    assert "row by row: superclass (3) by cosine 36.7 and 18.9, largest class 80%." in table
    equal = make_record(**level, classes=classes | {"images": [112, 44, 44], "clean": [112, 12, 0]})
    assert "§" not in records_table([equal]) and make_record().balanced is None


def test_table_turns_differences_into_columns():
    first = make_record(base=None)
    lines = records_table([first, replace(first, dataset="a|b", seed=3)], interval="plusminus").splitlines()
    assert lines[0] == "| Dataset | Level | Classifier | Seed | Clean | Robust |"
    assert lines[2] == "| uoft-cs/cifar10 (test) | leaf (10) | cosine | 0 | 62.0 ± 6.9 | 41.0 ± 6.9 |"
    assert lines[3].startswith("| a\\|b (test) |") and "seed" not in lines[-1]


def test_table_marks_a_missing_base():
    lines = records_table([make_record(), make_record(base=None)]).splitlines()
    assert lines[3].split(" | ")[2] == "–" and lines[3].split(" | ")[4] == "–"
    with pytest.raises(ValueError, match="records is empty"):
        records_table([])
    with pytest.raises(ValueError, match="interval='sd'"):
        records_table([make_record()], interval="sd")


def test_defences_with_other_constants_are_told_apart():
    measured = dict.fromkeys(("undefended_clean", "undefended_robust", "blind_robust"), 0.5)
    one = {"name": "ttc", "threshold": 0.2, "eot": 10, "adaptive_robust": 0.5} | measured
    other = one | {"threshold": 0.05, "adaptive_robust": 0.45}
    both = [make_record(base=None, defence=defence) for defence in (one, other, None)]
    text = records_table(both)
    assert "cosine + ttc, threshold 0.2 |" in text and "cosine + ttc, threshold 0.05 |" in text
    assert "threshold" not in records_table([both[0], both[2]])
