"""A leaderboard: its means against numbers by hand, and protocols that never share a column."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from example_records import PGD, depth_record
from figure_checks import setting_of
from leaderboard_records import record

from hf_hierrobust.evaluation.metrics import wilson_interval
from hf_hierrobust.evaluation.record_files import save_records
from hf_hierrobust.evaluation.records import describe_samples
from hf_hierrobust.reports.leaderboard import build_leaderboard, row_names
from hf_hierrobust.reports.leaderboard_text import leaderboard_json, leaderboard_markdown
from hf_hierrobust.reports.tables import attack_label
from hf_hierrobust.runs.leaderboard import write_leaderboard


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


def test_an_attack_of_ones_own_may_keep_its_step_as_text():
    own = record(attack=record().attack | {"name": "mine", "step_size": "1/255"})
    several = {"attacks": [{"name": "mine", "step_size": "1/255"}, {"name": "pgd", "step_size": 0.001}]}
    board = build_leaderboard([own, record(attack=record().attack | several)])
    assert len(board.tables) == 2 and "step 1/255" in attack_label(own.attack)
    assert leaderboard_markdown(board, {})


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
