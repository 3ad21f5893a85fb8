"""What all figures share: size, titles, names with anything in them."""

from __future__ import annotations

import builtins
import warnings

import pytest
import torch
from figure_checks import check_png
from test_bars import make_record
from test_curves import LOG

pytest.importorskip("matplotlib", reason="figures need the extra 'plots'")

from hf_hierrobust.reports import plot_ball, plot_before_after, plot_curves, plot_examples
from hf_hierrobust.reports.figure_io import save_png, undrawable


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


HOSTILE = [
    "a $\\frac{1}{0 name", "$$", "line\nbreak", "nul\x00", "\ud800 half", "\u202egnp.exe", "日本語",
    "x" * 500,
]  # fmt: skip


def test_kind23_any_name_can_be_drawn(tmp_path):
    pixels = torch.rand(len(HOSTILE), 3, 8, 8, generator=torch.Generator().manual_seed(0))
    nodes = 0.3 * torch.randn(len(HOSTILE), 4, generator=torch.Generator().manual_seed(1))
    records = [make_record(classifier=name, level_name=name, split=name, objective=name) for name in HOSTILE]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # a glyph without a font is no news by now
        plot_before_after(records, tmp_path / "bars.png")
        plot_curves([{"step": 1, "loss": 1.0} | dict.fromkeys(HOSTILE, 2.0)], tmp_path / "curves.png")
        plot_ball(nodes, [0] * len(HOSTILE), HOSTILE, path=tmp_path / "ball.png", setting=HOSTILE[0])
        for name in HOSTILE:
            names = [name] * len(HOSTILE)
            plot_examples(pixels, pixels, names, HOSTILE, names, tmp_path / "examples.png", setting=name)
    check_png(tmp_path / "bars.png")


def test_kind23_names_that_no_font_can_draw_are_found_before():
    assert undrawable(["cat", "Straße", "mötley $"]) == []
    assert undrawable(["cat", "\U0001f9ff amulet \U00012000"]) == ["\U0001f9ff amulet \U00012000"]
