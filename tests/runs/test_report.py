"""The last stage of a run: what is checked before it, and what a failing figure costs."""

from __future__ import annotations

import json

import datasets
import pytest
import yaml
from tiny_data import make_images
from tiny_files import load

from hf_hierrobust.cli.train import main
from hf_hierrobust.evaluation import load_records
from hf_hierrobust.runs import figures
from hf_hierrobust.runs.figures import spread
from hf_hierrobust.runs.report import check_report, tree_files
from hf_hierrobust.runs.train import build_trainer


def test_kind23_a_figure_that_fails_costs_neither_results_nor_card(command, monkeypatch, caplog):
    def broken(*args, **kwargs):
        raise RuntimeError("no such font")

    monkeypatch.setattr(figures, "plot_before_after", broken)
    out = command.options["output_dir"]
    out.mkdir()
    (out / "figures").mkdir()
    (out / "figures" / "before_after.png").write_text("of a former run")
    (out / "README.md").write_text("My words.\n")
    with caplog.at_level("WARNING", logger="transformers"):
        main(command.argv(card_license="mit", card_dataset="org/photos", card_base_model="org/base"))
    records = load_records(out / "results.json")
    assert len(records) >= 2
    assert not (out / "figures" / "before_after.png").exists(), "not this run's"
    for name in ("examples.png", "ball.png", "depth.png"):
        assert (out / "figures" / name).is_file()
    card = (out / "README.md").read_text()
    assert "### Depth" in card and "figures/depth.png" in card
    assert "before_after" not in card and "figures/ball.png" in card and card.rstrip().endswith("My words.")
    header = yaml.safe_load(card.split("---\n")[1])
    stated = (header["license"], header["datasets"], header["base_model"])
    assert stated == ("mit", ["org/photos"], "org/base")
    # Issue 34: budgets as fractions, defaults folded, a small tree printed, classes in the snippet, warnings.
    config = json.loads((out / "config.json").read_text())["hier_robust"]
    assert "| attack.eps | 1/255 |" in card and config["attack"]["eps"] == 1 / 255
    shown, folded = card.split("Settings at their defaults", 1)
    assert "| adam\\_beta1" not in shown and "adam_beta1" not in shown and "adam_beta1" in folded
    assert "None" not in card
    assert "Only 16 images" in card and "only 2 steps" in card
    run_tree = json.loads((out / "tiny.tree.json").read_text())["paths"]
    assert all(f"\n  {leaf}\n" in card for leaf in run_tree)
    assert f'candidate_labels=["{next(iter(run_tree))}"' in card


def test_kind23_what_a_card_cannot_state_stops_the_run_before_it_trains(command, monkeypatch):
    run = load(command)
    trainer = build_trainer(run)
    check_report(run, trainer)
    run.args.card_license = "no-such-licence"
    with pytest.raises(ValueError, match="licence='no-such-licence' is no licence"):
        check_report(run, trainer)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"card_license": "Apache 2"}, "card_license='Apache 2' is no licence.*apache-2.0"),
        ({"card_base_model": "/models/clip"}, "card_base_model='/models/clip' is no id on the Hub"),
        ({"card_dataset": "a\n---\nb/c"}, "card_dataset=.* is no id on the Hub, such as uoft-cs/cifar10"),
    ],
)
def test_kind23_fields_of_the_card_are_checked_with_the_arguments(command, changes, message):
    with pytest.raises(ValueError, match=message):
        load(command, **changes)


@pytest.mark.parametrize(
    "name", ["../../x", "/etc/passwd", "a/b", "..", ".env", "x\\y", "nul\x00", "ü" * 300]
)
def test_kind18_trees_are_written_into_the_output_directory_only(command, name):
    run = load(command)
    tree = run.forest.trees[0]
    object.__setattr__(tree, "name", name)  # past the check of names, as a plug-in could
    (file,) = tree_files(run)
    assert (run.output_dir / file).resolve().parent == run.output_dir.resolve()
    assert not file.startswith(".") and file.isascii() and len(file) < 120 and file.endswith(".tree.json")


def test_kind33_examples_go_round_the_classes():
    assert spread([0, 0, 0, 1, 1, 2], 4) == [0, 3, 5, 1]
    assert spread([0, 0], 5) == [0, 1]


def test_kind22_a_finished_run_started_again_keeps_what_its_card_says(command):
    argv = command.argv(resume_from_checkpoint="true", card_license="mit")
    main(argv)
    out = command.options["output_dir"]
    card, records = (out / "README.md").read_text(), (out / "results.json").read_text()
    (out / "README.md").unlink()
    main(argv)
    assert (out / "README.md").read_text() == card and "What was measured" in card
    assert (out / "results.json").read_text() == records


def test_kind23_a_torn_evaluation_image_is_found_before_the_training(command, tmp_path):
    images = make_images(8, seed=1)
    rows = [dict(row) for row in images.cast_column("image", datasets.Image(decode=False))]
    rows[5]["image"] = {"bytes": rows[5]["image"]["bytes"][:-200], "path": None}
    torn = datasets.Dataset.from_list(rows, features=images.features)
    torn.to_parquet(str(tmp_path / "torn.parquet"))
    with pytest.raises(ValueError, match=r"row 5 of .*torn\.parquet"):
        run = load(command, eval_file=tmp_path / "torn.parquet", eval_base="false")
        check_report(run, build_trainer(run))


def test_the_ball_shows_a_padded_class_once_at_its_own_level(command, monkeypatch, tmp_path):
    paths = {"cat": ["cat"], "dog": ["animal"], "oak": ["plant"], "rose": ["plant"]}
    (tmp_path / "padded.json").write_text(json.dumps(paths))
    drawn = {}
    monkeypatch.setattr(figures, "plot_ball", lambda tangent, *nodes, **more: drawn.update(more, nodes=nodes))
    figures._draw_ball(load(command, tree=tmp_path / "padded.json"), tmp_path / "ball.png")
    levels, names = drawn["nodes"]
    assert dict(zip(names, levels)) == {"cat": 0, "dog": 0, "oak": 0, "rose": 0, "animal": 1, "plant": 1}
    assert len(names) == 6
    assert [(names[c], names[p]) for c, p in drawn["edges"]] == [
        ("dog", "animal"),
        ("oak", "plant"),
        ("rose", "plant"),
    ]
