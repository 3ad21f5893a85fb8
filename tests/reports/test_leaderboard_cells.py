"""A leaderboard's cells: what is told apart stands apart, and nothing replaces another number unsaid."""

from __future__ import annotations

from dataclasses import replace

import pytest
from example_records import PGD
from leaderboard_records import record

from hf_hierrobust.evaluation.record_files import save_records
from hf_hierrobust.reports.leaderboard import build_leaderboard, row_names
from hf_hierrobust.reports.leaderboard_text import leaderboard_json
from hf_hierrobust.reports.transfer import transfer_matrices
from hf_hierrobust.runs import leaderboard
from hf_hierrobust.runs.leaderboard import write_leaderboard

TTC = {"name": "ttc", "eps": 4 / 255, "step_size": 1 / 255, "num_steps": 2, "threshold": 0.2, "beta": 2.0}


def defended(robust: int, model="a", eot=10, **constants):
    measured = {"undefended_clean": 0.6, "undefended_robust": 0.3, "blind_robust": 0.5}
    measured["adaptive_robust"] = robust / 200
    return record(model, robust=robust, defence=TTC | {"eot": eot} | constants | measured)


@pytest.mark.parametrize("turn", [1, -1])
def test_defences_with_other_constants_are_rows_of_their_own(turn):
    found = [defended(60), defended(20, threshold=0.05), defended(40, eot=50), record(robust=10)][::turn]
    board = build_leaderboard(found)
    (table,) = board.tables
    numbers = {row_names(board.rows)[row]: table.robust(row, table.budgets[0]).value for row in table.cells}
    assert numbers == {
        "a, cosine + ttc, eot 10, threshold 0.2": 0.3,
        "a, cosine + ttc, eot 10, threshold 0.05": 0.1,
        "a, cosine + ttc, eot 50, threshold 0.2": 0.2,
        "a, cosine": 0.05,
    }
    rows = leaderboard_json(board)["tables"][0]["rows"]
    assert sorted(row["defence"]["eot"] for row in rows if row["defence"]) == [10, 10, 50]
    other = build_leaderboard([defended(60), defended(40, "b", eot=50)])
    assert set(row_names(other.rows).values()) == {"a, cosine + ttc, eot 10", "b, cosine + ttc, eot 50"}
    assert set(row_names(build_leaderboard([defended(60), defended(40, "b")]).rows).values()) == {"a", "b"}


def test_two_results_of_one_cell_are_refused_and_equal_ones_are_one():
    with pytest.raises(ValueError, match=r"two records of 'a' on 'cifar10' .*4/255.* differ"):
        build_leaderboard([record(robust=80), record(robust=60)])
    assert len(build_leaderboard([record(), record(created="2026-01-01")]).tables) == 1


SEVERAL = {"name": "x+y", "norm": "linf", "eps": 4 / 255, "space": "native", "batch_size": 8}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"resolution": 32}, {"resolution": 64}),
        ({"batch_size": 8}, {"batch_size": 9}),
        ({"step_size": 1 / 255}, {"step_size": 2 / 255}),
    ],
)
def test_settings_of_one_among_several_attacks_are_protocol_too(one, other):
    attacks = [SEVERAL | {"attacks": [{"name": "x"}, {"name": "y"} | own]} for own in (one, other)]
    board = build_leaderboard([record("a", attack=attacks[0]), record("a", attack=attacks[1])])
    assert [len(table.cells) for table in board.tables] == [1, 1]


def test_steps_without_a_budget_are_told_apart():
    attacks = [PGD | {"eps": 0.0, "step_size": step} for step in (0.1, 0.2)]
    assert len(build_leaderboard([record(attack=attack) for attack in attacks]).tables) == 2


def test_titles_of_attacks_that_differ_far_behind_are_numbered():
    attacks = [
        SEVERAL | {"attacks": [{"name": "x" * 80}, {"name": "y", "queries": queries}]} for queries in (1, 2)
    ]
    titles = [t.title for t in build_leaderboard([record(attack=attack) for attack in attacks]).tables]
    assert len(set(titles)) == 2 and titles[1] == f"{titles[0]} (2)"


def test_a_base_with_several_numbers_is_noted_and_the_newest_counts():
    base = {"model": "clip", "classifier": "cosine", "clean_accuracy": 0.9, "robust_accuracy": 0.0}
    old = record(base=base | {"robust_accuracy": 0.1}, created="2026-01-01")
    new = record("b", base=base, created="2026-02-01")
    for found in ([old, new], [new, old]):
        board = build_leaderboard(found)
        (row,) = (row for row in board.rows if row.model == "clip")
        assert board.tables[0].robust(row, board.tables[0].budgets[0]).value == 0.0
        (note,) = board.notes
        assert "clip on cifar10" in note and "beside a (10.0 % robust)" in note and "(0.0 %)" in note
    own = record("clip", objective="none", clean=180, robust=30, model_hash="c" * 16)
    assert "(15.0 %)" in build_leaderboard([new, own]).notes[0]
    assert not build_leaderboard([new, replace(own, robust_accuracy=0.0, intervals={})]).notes
    seeds = build_leaderboard([new, record("b", base=base | {"robust_accuracy": 0.1}, seed=1)])
    assert not seeds.notes and {row.seed for row in seeds.rows if row.model == "clip"} == {0, 1}


def test_clean_accuracies_that_differ_between_budgets_are_noted():
    board = build_leaderboard([record(eps=4, clean=120), record(eps=1, clean=110)])
    (table,) = board.tables
    (row,) = table.cells
    assert table.clean(row).value == 0.55 and "differ between budgets (55.0, 60.0 %)" in board.notes[0]


def test_figures_of_models_of_one_name_do_not_replace_one_another(monkeypatch, tmp_path):
    def transfers(**changes):
        return [
            record(level=j, level_name=("leaf", "superclass")[j], crafted_level=i, judged_level=j,
                   transfer_rate=1 - 80 / 120, **changes)
            for i in (0, 1) for j in (0, 1)
        ]  # fmt: skip

    drawn = []
    monkeypatch.setattr(leaderboard, "save_png_and_svg", lambda figure, stem: drawn.append(stem.name))
    for name in ("plot_budgets", "plot_clean_robust"):
        monkeypatch.setattr(leaderboard, name, lambda tables: None)
    monkeypatch.setattr(leaderboard, "plot_transfer", transfer_matrices)
    others = {"model_hash": "b" * 16}, {"tree_hash": "c" * 16}, {"split": "train"}, {"objective": "fare"}
    found = [one for changes in ({}, *others) for one in transfers(**changes)]
    save_records(tmp_path / "r.jsonl", [record(), *found])
    write_leaderboard([tmp_path / "r.jsonl"], tmp_path / "out")
    stems = [name for name in drawn if name.startswith("transfer-")]
    assert len(stems) == len(set(stems)) == 5 and stems[1] == f"{stems[0]}-2"
