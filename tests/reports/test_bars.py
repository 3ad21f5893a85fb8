"""Bars before and after: the accuracies, one panel a level, names that tell the records apart."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from figure_checks import check_png, setting_of, texts_of
from PIL import Image

pytest.importorskip("matplotlib", reason="figures need the extra 'plots'")

from hf_hierrobust.evaluation.records import RobustnessRecord, describe_samples
from hf_hierrobust.reports.bars import MAX_GROUPS, plot_before_after


def make_record(level=0, clean=0.62, robust=0.41, base=(0.9, 0.02), **changes) -> RobustnessRecord:
    entries = {
        "model": "someone/robust-clip",
        "objective": "hier_robust",
        "dataset": "glyphs",
        "split": "test",
        "class_set": "glyphs",
        "num_classes": (20, 5)[level],
        "level": level,
        "level_name": ("leaf", "superclass")[level],
        "classifier": ("cosine", "rollup")[level],
        "attack": {"name": "pgd", "num_steps": 20, "norm": "linf", "eps": 4 / 255, "space": "native"},
        "seed": 0,
        "num_samples": 200,
        "sample_ids": describe_samples(range(200), "the first 200"),
        "clean_accuracy": clean,
        "robust_accuracy": robust,
        "base": base and {"clean_accuracy": base[0], "robust_accuracy": base[1]},
    }
    return RobustnessRecord(**(entries | changes))


def bars_of(axes) -> dict[str, list[float]]:
    containers = [c for c in axes.containers if hasattr(c, "patches")]
    return {c.get_label(): [round(bar.get_width(), 6) for bar in c.patches] for c in containers}


def names_of(axes) -> list[str]:
    return [tick.get_text() for tick in axes.get_yticklabels()]


def test_kind33_one_panel_a_level_with_horizontal_bars_of_the_accuracies(tmp_path):
    records = [make_record(1, 0.8, 0.6, (0.95, 0.1)), make_record()]
    path = tmp_path / "figures" / "bars.png"
    leaf, upper = plot_before_after(records, path).axes
    assert bars_of(leaf) == {
        "clean, before": [90],
        "clean, after": [62],
        "robust, before": [2],
        "robust, after": [41],
    }
    assert bars_of(upper)["robust, after"] == [60] and bars_of(upper)["clean, before"] == [95]
    assert [axes.get_title(loc="left") for axes in (leaf, upper)] == [
        "leaf, 20 classes", "superclass, 5 classes",
    ]  # fmt: skip
    assert {f"{value:.1f}" for value in (90, 62, 2, 41)} == set(texts_of(leaf))
    assert names_of(leaf) == ["cosine"] and names_of(upper) == ["rollup"]
    assert upper.get_xlabel() == "accuracy (%)" and leaf.get_xlim()[0] == 0
    check_png(path)


def test_kind33_the_title_names_model_data_attack_and_space():
    figure = plot_before_after([make_record(), make_record(1)])
    for said in (
        "someone/robust-clip",
        "glyphs (test)",
        "200 images",
        "pgd-20, linf, eps 4/255",
        "space native",
    ):
        assert said in setting_of(figure)
    weaker = {"name": "pgd", "num_steps": 20, "norm": "linf", "eps": 1 / 255, "space": "model"}
    mixed = plot_before_after([make_record(), make_record(attack=weaker)])
    assert "several attacks" in setting_of(mixed) and "several spaces" in setting_of(mixed)
    assert names_of(mixed.axes[0])[1].startswith("cosine\npgd-20 linf:1/255 mod")


def test_kind33_a_base_by_another_classifier_says_so():
    record = make_record(classifier="hyperbolic")
    entries = record.to_dict()
    entries["base"]["classifier"] = "cosine"
    (axes,) = plot_before_after([entries]).axes
    assert {"90.0 by cosine", "2.0 by cosine", "62.0", "41.0"} == set(texts_of(axes))


def test_kind33_many_records_stay_one_page(tmp_path):
    names = [f"classifier {i}" for i in range(30)]
    path = tmp_path / "many.png"
    figure = plot_before_after([make_record(classifier=name) for name in names], path)
    assert len(names_of(figure.axes[0])) == MAX_GROUPS
    assert f"{30 - MAX_GROUPS} more records in results.json" in setting_of(figure)
    with Image.open(path) as image:
        assert image.width <= 1200 and image.height <= 2400


def test_before_after_error_bars_are_the_wilson_bounds():
    record = make_record(base=None)
    (axes,) = plot_before_after([record]).axes
    assert bars_of(axes) == {"clean, after": [62], "robust, after": [41]}
    drawn = [c.errorbar.lines[2][0].get_segments()[0][:, 0] for c in axes.containers if hasattr(c, "patches")]
    expected = [100 * np.array(record.intervals[kind]) for kind in ("clean", "robust")]
    assert np.allclose(drawn, expected)


def test_before_after_bars_do_not_overlap_and_stay_in_their_group():
    (axes,) = plot_before_after([make_record(), make_record(classifier="rollup")]).axes
    spans = sorted((bar.get_y(), bar.get_y() + bar.get_height()) for bar in axes.patches)
    assert len(spans) == 8
    assert all(right <= left + 1e-9 for (_, right), (left, _) in itertools.pairwise(spans))
    assert [round((left + right) / 2) for left, right in spans] == [0] * 4 + [1] * 4


def test_before_after_leaves_out_a_missing_base_and_tells_models_apart():
    long_name = "someone/a-model-with-a-very-long-name-indeed"
    (axes,) = plot_before_after([make_record(), make_record(base=None, model=long_name).to_dict()]).axes
    assert bars_of(axes)["clean, before"] == [90] and bars_of(axes)["clean, after"] == [62, 62]
    assert names_of(axes)[1] == "cosine\na-model-with-a-very-lon…"
    with pytest.raises(ValueError, match="records is empty"):
        plot_before_after([])


def test_pyplot_is_left_alone(tmp_path):
    import matplotlib.pyplot as plt

    plot_before_after([make_record()], tmp_path / "bars.png")
    assert plt.get_fignums() == []
