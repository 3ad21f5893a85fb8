"""Fields of records beyond one classifier under its own attack: transfer, targets, defences, diagnostics."""

from __future__ import annotations

import pytest
from example_records import PGD, make_record

from hf_hierrobust.evaluation.compare import with_base
from hf_hierrobust.evaluation.records import RobustnessRecord
from hf_hierrobust.reports import masking_sentence, records_table

TRANSFER = {"crafted_level": 1, "judged_level": 0, "transfer_rate": 1 - 0.41 / 0.62}
TARGET = PGD | {"target": "within superclass", "target_level": 1}
DEFENCE = {
    "name": "ttc",
    "eot": 5,
    "undefended_clean": 0.7,
    "undefended_robust": 0.1,
    "blind_robust": 0.5,
    "adaptive_robust": 0.41,
}


def suspected(**diagnostics):
    return {"masking": "suspected: x", "diagnostics": diagnostics}


def test_such_records_come_back_equal_and_are_not_direct():
    for changes in (
        TRANSFER,
        {"attack": TARGET},
        {"defence": DEFENCE},
        {"attack": PGD | {"text_attack": {"name": "bert"}}},
    ):
        record = make_record(**changes)
        assert RobustnessRecord.from_dict(record.to_dict()) == record and not record.direct
    assert make_record(checks=suspected(steps={"verdict": "failed"})).direct
    none_right = make_record(
        clean_accuracy=0, robust_accuracy=0, base=None, **TRANSFER | {"transfer_rate": None}
    )
    assert none_right.transfer_rate is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crafted_level": 1}, "crafted_level=1 and judged_level=None: give both"),
        ({"transfer_rate": 0.3}, "transfer_rate=0.3 needs crafted_level"),
        (TRANSFER | {"judged_level": 1}, "judged_level=1 differs from level=0"),
        (TRANSFER | {"crafted_level": -1}, "crafted_level=-1 must be an integer >= 0"),
        (TRANSFER | {"crafted_level": True}, "crafted_level=True must be an integer"),
        (TRANSFER | {"transfer_rate": 0.41}, r"transfer_rate=0.41 is not 1 - robust_accuracy"),
        (TRANSFER | {"transfer_rate": None}, r"transfer_rate=None is not 1 - robust_accuracy"),
        ({"attack": PGD | {"target": "within superclass"}}, "attack.target_level=None: give both"),
        ({"attack": TARGET | {"target": "near"}}, "attack.target='near'"),
        ({"attack": PGD | {"name": 7}}, "attack.name=7 must be a non-empty string"),
        ({"attack": PGD | {"norm": ["linf"]}}, r"attack.norm=\['linf'\] must be a non-empty string"),
        ({"attack": PGD | {"attacks": "pgd"}}, "attack.attacks='pgd' must be a list"),
        ({"attack": PGD | {"attacks": [1]}}, r"attack.attacks=\[1\] must be a list"),
        ({"sample_ids": {"count": 100, "sha256": None}}, "sample_ids=.* must hold sha256"),
        ({"wall_seconds": "1"}, "wall_seconds='1' must be a number"),
        ({"cost": {"forwards": None, "backwards": 1}}, "cost=.* must count forwards and backwards"),
        ({"cost": 7}, "cost=7 must count forwards and backwards"),
        ({"checks": {"diagnostics": [1]}}, r"checks.diagnostics=\[1\] must be an object"),
        ({"attack": TARGET | {"target_level": 0}}, "attack.target_level=0 must be a superclass level"),
        ({"defence": {"name": "ttc"}}, r"defence lacks \['eot', 'undefended_clean'"),
        ({"defence": DEFENCE | {"blind_robust": 0.7}}, "defence.blind_robust.*exceeds"),
        ({"defence": DEFENCE | {"adaptive_robust": 0.4}}, "adaptive_robust=0.4 is below robust_accuracy"),
        ({"defence": DEFENCE | {"undefended_robust": 0.8}}, "undefended_robust_accuracy=0.8 exceeds"),
        ({"checks": suspected(steps={})}, "checks.diagnostics.steps={} needs a verdict"),
        (
            {"checks": {"masking": "none seen", "diagnostics": {"steps": {"verdict": "failed"}}}},
            r"diagnostics failed \(steps\) but checks.masking says otherwise",
        ),
    ],
    ids=str,
)
def test_contradictions_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_record(**changes)


def test_tables_say_what_was_attacked():
    shown = records_table(
        [make_record(), make_record(**TRANSFER), make_record(attack=TARGET), make_record(defence=DEFENCE)]
    )
    for words in ("cosine, crafted at superclass", "target within superclass", "cosine + ttc"):
        assert words in shown


def test_a_base_is_one_of_the_same_kind_of_measurement():
    plain = make_record(base=None)
    for changes in (TRANSFER, {"attack": TARGET}, {"defence": DEFENCE}):
        other = make_record(base=None, **changes)
        assert with_base([plain], [other])[0].base is None and with_base([other], [other])[0].base


def test_kinds_of_measurement_do_not_count_as_budgets_of_one_another():
    larger = make_record(attack=PGD | {"eps": 8 / 255}, robust_accuracy=0.3)
    checked = {"checks": {"masking": "none seen", "zero_gradient_fraction": 0.0}}
    weaker = [
        make_record(robust_accuracy=0.2, transfer_rate=1 - 0.2 / 0.62, **checked)
        if "crafted_level" in changes
        else make_record(robust_accuracy=0.2, **checked, **changes)
        for changes in ({"attack": TARGET}, {"defence": DEFENCE | {"adaptive_robust": 0.2}})
    ]
    assert "larger budget" not in masking_sentence([larger, *weaker])
