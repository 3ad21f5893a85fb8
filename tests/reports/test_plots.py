"""Figures: what is drawn equals what went in, PNGs are valid and small, bad input is refused."""

from __future__ import annotations

import builtins
import itertools

import numpy as np
import pytest
import torch
from figure_checks import check_png, texts_of

pytest.importorskip("matplotlib", reason="figures need the extra 'plots'")


from hf_hierrobust.evaluation.records import RobustnessRecord, describe_samples
from hf_hierrobust.reports.figure_io import save_png
from hf_hierrobust.reports.plots import RIGHT, WRONG, plot_before_after, plot_curves, plot_examples


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
    return {c.get_label(): [round(bar.get_height(), 6) for bar in c.patches] for c in containers}


# ------------------------------------------------------------------ before / after


def test_before_after_bars_are_the_accuracies(tmp_path):
    records = [make_record(), make_record(1, 0.8, 0.6, (0.95, 0.1))]
    path = tmp_path / "figures" / "bars.png"
    (axes,) = plot_before_after(records, path).axes
    assert bars_of(axes) == {
        "clean, before": [90, 95],
        "clean, after": [62, 80],
        "robust, before": [2, 10],
        "robust, after": [41, 60],
    }
    shown = texts_of(axes)
    assert all(f"{value:.1f}" in shown for value in (90, 95, 62, 80, 2, 10, 41, 60))
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["leaf\ncosine", "superclass\nrollup"]
    assert any("pgd-20, linf, eps 4/255" in text and "200 images" in text for text in shown)
    assert axes.get_ylabel() == "accuracy (%)"
    check_png(path, (round(7.2 * 150), round(4.6 * 150)))


def test_before_after_error_bars_are_the_wilson_bounds():
    record = make_record(base=None)
    (axes,) = plot_before_after([record]).axes
    assert bars_of(axes) == {"clean, after": [62], "robust, after": [41]}
    drawn = [c.errorbar.lines[2][0].get_segments()[0][:, 1] for c in axes.containers if hasattr(c, "patches")]
    expected = [100 * np.array(record.intervals[kind]) for kind in ("clean", "robust")]
    assert np.allclose(drawn, expected)


def test_before_after_bars_do_not_overlap_and_stay_in_their_group():
    (axes,) = plot_before_after([make_record(), make_record(1, 0.8, 0.6)]).axes
    spans = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches)
    assert len(spans) == 8
    assert all(right <= left + 1e-9 for (_, right), (left, _) in itertools.pairwise(spans))
    assert [round((left + right) / 2) for left, right in spans] == [0] * 4 + [1] * 4


def test_before_after_leaves_out_a_missing_base_and_tells_models_apart():
    long_name = "someone/a-model-with-a-very-long-name-indeed"
    (axes,) = plot_before_after([make_record(), make_record(base=None, model=long_name).to_dict()]).axes
    assert bars_of(axes)["clean, before"] == [90] and bars_of(axes)["clean, after"] == [62, 62]
    assert axes.get_xticklabels()[1].get_text() == "leaf\ncosine\na-model-with-a-very-l…"
    with pytest.raises(ValueError, match="records is empty"):
        plot_before_after([])


def test_pyplot_is_left_alone(tmp_path):
    import matplotlib.pyplot as plt

    plot_before_after([make_record()], tmp_path / "bars.png")
    assert plt.get_fignums() == []


# ------------------------------------------------------------------ examples


def example_inputs(count=3, size=16):
    generator = torch.Generator().manual_seed(0)
    pixels = 0.2 + 0.6 * torch.rand(count, 3, size, size, generator=generator)
    sign = torch.randn(pixels.shape, generator=generator).sign()
    return pixels, pixels + sign * 4 / 255


def test_examples_show_images_perturbation_and_verdicts(tmp_path):
    pixels, adversarial = example_inputs()
    path = tmp_path / "examples.png"
    figure = plot_examples(
        pixels, adversarial, ["cat", "dog", "cat"], ["cat", "car", "bus"], ["cat", "dog", "hen"], path
    )
    grid = np.array(figure.axes).reshape(3, 3)
    shown = np.array([[axes.images[0].get_array() for axes in row] for row in grid])
    as_hwc = pixels.permute(0, 2, 3, 1).numpy()
    assert np.allclose(shown[0], as_hwc, atol=1e-6)
    assert np.allclose(shown[2], adversarial.permute(0, 2, 3, 1).numpy(), atol=1e-6)
    # 31 is the largest whole factor that keeps 4/255 around mid-grey within [0, 1].
    assert np.allclose(shown[1], 0.5 + 31 * (shown[2] - shown[0]), atol=1e-5)
    assert grid[1, 0].get_ylabel() == "perturbation × 31"
    assert "4/255" in figure.get_suptitle()
    assert [axes.get_title() for axes in grid[0]] == ["cat", "dog", "hen"]
    verdicts = [(axes.xaxis.label.get_text(), axes.xaxis.label.get_color()) for axes in (*grid[0], *grid[2])]
    assert verdicts == [
        ("✓ cat", RIGHT),
        ("✓ dog", RIGHT),
        ("✗ cat", WRONG),
        ("✓ cat", RIGHT),
        ("✗ car", WRONG),
        ("✗ bus", WRONG),
    ]
    check_png(path)


def test_examples_limit_columns_and_take_a_given_factor():
    pixels, adversarial = example_inputs(count=5)
    names = list("abcde")
    figure = plot_examples(pixels, adversarial, names, names, names, amplify=5, max_columns=2)
    assert len(figure.axes) == 6 and figure.axes[2].get_ylabel() == "perturbation × 5"
    same = plot_examples(pixels, pixels, names, names, names)
    assert np.allclose(same.axes[6].images[0].get_array(), 0.5)  # no perturbation is mid-grey


def test_incompressible_examples_still_fit(tmp_path):
    generator = torch.Generator().manual_seed(0)
    pixels, adversarial = torch.rand(2, 4, 3, 160, 160, generator=generator)
    path = tmp_path / "noise.png"
    plot_examples(pixels, adversarial, list("abcd"), list("abcd"), list("abcd"), path)
    check_png(path)


def test_examples_refuse():
    pixels, adversarial = example_inputs()
    names = list("abc")
    with pytest.raises(ValueError, match=r"must both be \(B, 3, H, W\)"):
        plot_examples(pixels, adversarial[:2], names, names, names)
    with pytest.raises(ValueError, match=r"adversarial must be in \[0, 1\]"):
        plot_examples(pixels, adversarial + 1, names, names, names)
    with pytest.raises(ValueError, match="3 images but 2 names"):
        plot_examples(pixels, adversarial, names, names[:2], names)


# ------------------------------------------------------------------ curves


LOG = [
    {"step": 10, "loss": 3.0, "loss_hita": 2.5, "loss_gap": 0.5, "learning_rate": 1e-4, "grad_norm": 1.0},
    {"step": 10, "eval_clean_accuracy": 0.5, "eval_robust_accuracy": 0.1, "eval_loss": 9.0},
    {"step": 20, "loss": 2.0, "loss_hita": 1.8, "loss_gap": 0.2, "learning_rate": 5e-5, "grad_norm": 1.0},
    {"step": 20, "eval_clean_accuracy": 0.6, "eval_robust_accuracy": 0.3, "eval_loss": 8.0},
    {"step": 20, "train_runtime": 5.0, "train_loss": 2.5},
]


def lines_of(axes) -> dict[str, tuple[list, list]]:
    return {
        line.get_label(): tuple(np.round(data, 6).tolist() for data in line.get_data()) for line in axes.lines
    }


def test_curves_separate_losses_from_scores(tmp_path):
    path = tmp_path / "curves.png"
    losses, scores = plot_curves(LOG, path).axes
    assert lines_of(losses) == {
        "loss": ([10, 20], [3.0, 2.0]),
        "loss hita": ([10, 20], [2.5, 1.8]),
        "loss gap": ([10, 20], [0.5, 0.2]),
    }
    assert lines_of(scores) == {
        "clean accuracy": ([10, 20], [50.0, 60.0]),
        "robust accuracy": ([10, 20], [10.0, 30.0]),
    }
    assert (losses.get_ylabel(), scores.get_ylabel(), scores.get_xlabel()) == (
        "loss",
        "accuracy (%)",
        "optimiser step",
    )
    check_png(path)


def test_curves_without_evaluation_and_with_named_terms():
    (axes,) = plot_curves([row for row in LOG if "loss" in row], terms=["loss", "grad_norm"]).axes
    assert set(lines_of(axes)) == {"loss", "grad norm"}
    with pytest.raises(ValueError, match="none of the loss terms"):
        plot_curves(LOG, terms=["no_such_term"])


# ------------------------------------------------------------------ saving


def test_a_figure_that_cannot_fit_is_refused(tmp_path):
    figure = plot_curves(LOG)
    with pytest.raises(ValueError, match=r"small\.png needs \d+ bytes, above 100"):
        save_png(figure, tmp_path / "small.png", max_bytes=100)
    assert not (tmp_path / "small.png").exists()


def test_missing_matplotlib_names_the_extra(monkeypatch):
    real_import = builtins.__import__

    def without_matplotlib(name, *args, **kwargs):
        if name.split(".")[0] == "matplotlib":
            raise ImportError("No module named 'matplotlib'")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    with pytest.raises(ImportError, match=r"hf_hierrobust\[plots\]"):
        plot_curves(LOG)
