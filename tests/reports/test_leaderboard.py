"""A leaderboard: its means against numbers by hand, and protocols that never share a column."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from example_records import PGD, depth_record, make_record
from figure_checks import setting_of

from hf_hierrobust.evaluation.metrics import wilson_interval
from hf_hierrobust.evaluation.record_files import save_records
from hf_hierrobust.evaluation.records import describe_samples
from hf_hierrobust.reports.leaderboard import build_leaderboard, row_names
from hf_hierrobust.reports.leaderboard_text import leaderboard_json, leaderboard_markdown
from hf_hierrobust.reports.transfer import transfer_matrices
from hf_hierrobust.runs import leaderboard
from hf_hierrobust.runs.leaderboard import write_leaderboard


def record(model="a", dataset="cifar10", clean=120, robust=80, eps=4, **changes):
    """200 images, eps/4 a step."""
    return make_record(
        **{
            "model": model,
            "dataset": dataset,
            "objective": "tecoa",
            "class_set": dataset,
            "attack": PGD | {"eps": eps / 255, "step_size": eps / 4 / 255},
            "sample_ids": describe_samples([f"{dataset}{i}" for i in range(200)], "all"),
            "clean_accuracy": clean / 200,
            "robust_accuracy": robust / 200,
            "base": None,
            "cost": {"forwards": 40.0, "backwards": 20.0},
        }
        | changes
    )


def four(model, robust):
    """Two data sets at two budgets."""
    return [
        record(model, name, robust=count, eps=eps, cost={"forwards": 10.0 * eps, "backwards": 5.0})
        for (name, eps), count in zip([(n, e) for n in ("cifar10", "dtd") for e in (1, 4)], robust)
    ]


def test_means_are_over_data_sets_and_rows_stand_by_the_largest_budget():
    board = build_leaderboard([*four("weak", (100, 20, 60, 10)), *four("strong", (90, 40, 50, 30))])
    (table,) = board.tables
    strong, weak = table.ordered()
    assert (strong.model, weak.model) == ("strong", "weak") and table.sets == ["cifar10", "dtd"]
    small, large = table.budgets
    assert table.robust(weak, small).value == pytest.approx((0.5 + 0.3) / 2)
    assert table.robust(strong, large).value == pytest.approx((0.2 + 0.15) / 2)
    assert table.clean(weak).value == pytest.approx(0.6)
    width = 0.6 - wilson_interval(120, 200)[0]  # the wider side, twice, independent
    assert table.clean(weak).half_width == pytest.approx((2 * width**2) ** 0.5 / 2)
    assert table.cost(weak, small) == (10.0, 5.0) and table.cost(weak, large) == (40.0, 5.0)
    text = leaderboard_markdown(board)
    assert "| strong | tecoa | 60.0 ± 4.9 | 35.0 ± " in text and "10 / 5, 40 / 5 |" in text
    assert "| weak | 60.0 / 50.0 / 10.0 | 60.0 / 30.0 / 5.0 |" in text


def test_a_model_that_lacks_a_set_has_numbers_but_no_mean():
    board = build_leaderboard([*four("whole", (100, 20, 60, 10)), *four("part", (100, 20, 60, 10))[:2]])
    (table,) = board.tables
    part = next(row for row in table.cells if row.model == "part")
    assert table.clean(part) is None and table.ordered()[-1] == part
    assert "| part | 60.0 / 50.0 / 10.0 | – |" in leaderboard_markdown(board)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sample_ids": describe_samples(range(200), "others")}, "which images"),
        ({"templates_hash": "f" * 16}, "prompt templates (ffffffffffffffff, not None)"),
        ({"tree_hash": "e" * 16}, "class tree"),
        ({"split": "validation"}, "split (validation, not test)"),
        ({"attack": PGD | {"space": "model"}}, "threat space (model, not native)"),
        ({"attack": PGD | {"search_dtype": "bfloat16"}}, "precision of the search"),
        ({"attack": PGD | {"step_size": 4 / 255}}, "step size by eps (1.0, not 0.25)"),
        ({"num_classes": 100}, "classes (100, not 10)"),
    ],
)
def test_another_protocol_gets_a_table_of_its_own_that_says_why(change, says):
    """The most common one comes first."""
    board = build_leaderboard([record("x", **change), record("y"), record("z")])
    first, other = board.tables
    assert {row.model for row in first.cells} == {"y", "z"} and {row.model for row in other.cells} == {"x"}
    assert says in other.differs
    assert "(other protocol)" in leaderboard_markdown(board)


def test_other_attacks_and_levels_are_other_sections():
    stronger = PGD | {"num_steps": 100}
    board = build_leaderboard(
        [
            record(),
            record(attack=stronger),
            record(level=1, level_name="superclass", num_classes=2),
            record(level=1, level_name="superclass", num_classes=2, classifier="rollup"),
        ]
    )
    assert [(t.title, t.level_name, t.kind, t.variant) for t in board.tables] == [
        ("pgd-100, linf", "leaf", "prompts", 0),
        ("pgd-20, linf", "leaf", "prompts", 0),
        ("pgd-20, linf", "superclass", "prompts", 0),
        ("pgd-20, linf", "superclass", "rolled up", 0),
    ]
    hidden = build_leaderboard([record(), record(attack=PGD | {"early_stop": False})])
    assert len({table.title for table in hidden.tables}) == 2 and "early_stop" in hidden.tables[0].title


def test_rows_are_told_apart_by_scores_weights_and_seeds():
    records = [
        record(model_hash="a" * 16),
        record(model_hash="b" * 16),
        record("s", seed=0),
        record("s", seed=1),
        record("h"),
        record("h", classifier="hyperbolic"),
    ]
    board = build_leaderboard(records)
    assert set(row_names(board.rows).values()) == {
        "a, weights aaaaaa",
        "a, weights bbbbbb",
        "s, seed 0",
        "s, seed 1",
        "h, cosine",
        "h, hyperbolic",
    }
    assert len(board.tables) == 1


def test_a_base_beside_the_records_is_a_row_unless_it_has_records_of_its_own():
    base = {"model": "clip", "classifier": "cosine", "clean_accuracy": 0.9, "robust_accuracy": 0.0}
    board = build_leaderboard([record(base=base), record("b", base=base)])
    (table,) = board.tables
    assert [row.model for row in table.ordered()] == ["a", "b", "clip"]
    own = record("clip", objective="none", clean=180, robust=0, model_hash="c" * 16)
    rows = build_leaderboard([record(base=base), own]).rows
    assert [(row.model, row.model_hash) for row in rows if row.model == "clip"] == [("clip", "c" * 16)]


def test_doubted_numbers_are_marked_wherever_they_enter():
    doubt = {"masking": "suspected: margin broke 20.0% of the images that stood after ce"}
    board = build_leaderboard(
        [*four("a", (100, 20, 60, 10))[:3], replace(four("a", (100, 20, 60, 10))[3], checks=doubt)]
    )
    text = leaderboard_markdown(board)
    assert re.search(r"\| 60.0 ± 4.9 \| 40.0 ± 4.8 \| 7.5 ± 3.\d ‡ \|", text)
    assert "60.0 / 30.0 / 5.0 ‡" in text
    assert "table 1, a: margin broke 20.0%" in text and "(dtd at 4/255)" in text
    doubted = leaderboard_json(board)["tables"][0]["rows"][0]["robust"]
    assert [mean["doubted"] for mean in doubted] == [False, True]


def test_hostile_names_do_not_break_the_document():
    text = leaderboard_markdown(
        build_leaderboard([record("a|b<script>", dataset="x|y"), record("c", dataset="z")])
    )
    assert "<script>" not in text.replace("\\<script\\>", "") and "a\\|b" in text


def test_files_become_a_document_json_and_figures(tmp_path):
    pytest.importorskip("matplotlib", reason="figures need the extra 'plots'")
    from figure_checks import check_png

    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    classes = {"names": list(names), "images": [20] * 10, "clean": [12] * 10, "robust": [8] * 10}
    save_records(tmp_path / "one/results.json", [record(classes=classes), record(eps=1)])
    save_records(tmp_path / "two/records/b.jsonl", [record("b", robust=60), record("b", eps=1, robust=100)])
    written = write_leaderboard(
        [tmp_path / "one", tmp_path / "two", tmp_path], tmp_path / "out", tree="cifar10"
    )
    stems = ["budgets", "clean-robust", "classes-cifar10"]
    assert written.files == [
        "leaderboard.md",
        "leaderboard.json",
        *(f"figures/{stem}{end}" for stem in stems for end in (".png", ".svg")),
    ]
    for stem in stems:
        check_png(tmp_path / f"out/figures/{stem}.png")
        assert f"](figures/{stem}.png)" in (tmp_path / "out/leaderboard.md").read_text()
    assert json.loads((tmp_path / "out/leaderboard.json").read_text())["records"] == 4
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    write_leaderboard([tmp_path / "one", tmp_path / "two"], tmp_path / "out")  # the class set's own tree
    assert before == {p: p.read_bytes() for p in before}  # the same records, the same bytes


def test_transfer_and_depth_are_drawn_and_are_no_rows(tmp_path):
    pytest.importorskip("matplotlib", reason="figures need the extra 'plots'")
    transfers = [
        record(
            level=judged,
            level_name=("leaf", "superclass")[judged],
            crafted_level=crafted,
            judged_level=judged,
            transfer_rate=1 - 80 / 120,
        )
        for crafted in (0, 1)
        for judged in (0, 1)
    ]
    save_records(tmp_path / "r.jsonl", [record(), *transfers, *(depth_record(level) for level in (2, 0, 1))])
    written = write_leaderboard([tmp_path / "r.jsonl"], tmp_path / "out")
    stems = {file.removesuffix(".png") for file in written.files if file.endswith(".png")}
    assert any("transfer-" in stem for stem in stems) and any("margins-" in stem for stem in stems)
    counted = sum(len(cells) for table in written.board.tables for cells in table.cells.values())
    assert counted == len(written.board.records) - len(transfers) + sum(
        row.model == "openai/clip" for table in written.board.tables for row in table.cells
    )


@pytest.mark.parametrize("models", [1, 23])
def test_one_model_and_many(models):
    pytest.importorskip("matplotlib", reason="figures need the extra 'plots'")
    from hf_hierrobust.reports.leaderboard_plots import figure_groups, plot_budgets, plot_clean_robust

    records = [
        one
        for number in range(models)
        for one in four(f"lab/a-model-with-a-long-name-{number}", [100 - number, 60 - number, 80, 40])
    ]
    (tables,) = figure_groups(build_leaderboard(records))
    figure = plot_budgets(tables)
    lines = [line for line in figure.axes[0].lines if not line.get_label().startswith("_")]
    assert len(lines) == min(models, 12)
    assert ("11 less robust models in grey" in setting_of(figure)) == (models == 23)
    top = next(line for line in lines if line.get_label().endswith("-0"))
    assert list(top.get_ydata()) == pytest.approx([60, 45, 25])
    scatter = plot_clean_robust(tables)
    numbers = [text.get_text() for text in scatter.axes[0].texts]
    assert sorted(map(int, numbers)) == list(range(1, models + 1))


def test_the_classes_of_a_large_tree_are_gathered():
    pytest.importorskip("matplotlib", reason="figures need the extra 'plots'")
    from hf_hierrobust.reports.class_plot import plot_class_drop

    count = 200
    classes = {
        "names": [f"c{i}" for i in range(count)],
        "images": [0, *[2] * (count - 1)],
        "clean": [0, *[2] * (count - 1)],
        "robust": [0, *[i % 2 for i in range(1, count)]],
    }
    above = [[f"g{i // 10}" for i in range(count)], [f"t{i // 100}" for i in range(count)]]
    figure = plot_class_drop(classes, above)
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(rows) == 20 and "g0 (18)" in rows and "20 superclasses in place of 199" in setting_of(figure)
    assert "130 of 199" in setting_of(plot_class_drop(classes))
    few = {key: values[:5] for key, values in classes.items()}
    groups = [["x", "x", "y", "y", "y"]]
    rows = [label.get_text() for label in plot_class_drop(few, groups).axes[0].get_yticklabels()]
    assert rows == ["c2 (2)", "c4 (2)", "c3 (2)", "c1 (2)"]
    with pytest.raises(ValueError, match="one a class"):
        plot_class_drop(few, [["x"]])


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
