"""The row of attacked images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from figure_checks import check_png, setting_of

pytest.importorskip("matplotlib", reason="figures need the extra 'plots'")

from hf_hierrobust.reports.examples import REACH, RIGHT, WRONG, plot_examples


def example_inputs(count=3, size=16):
    generator = torch.Generator().manual_seed(0)
    pixels = 0.2 + 0.6 * torch.rand(count, 3, size, size, generator=generator)
    sign = torch.randn(pixels.shape, generator=generator).sign()
    return pixels, pixels + sign * 4 / 255


def test_kind33_examples_show_images_perturbation_and_verdicts(tmp_path):
    pixels, adversarial = example_inputs()
    path = tmp_path / "examples.png"
    figure = plot_examples(
        pixels,
        adversarial,
        ["cat", "dog", "cat"],
        ["cat", "car", "bus"],
        ["cat", "dog", "hen"],
        path,
        setting="m on d; pgd-20; space native; the first 4",
    )
    grid = np.array(figure.axes).reshape(3, 3)
    shown = np.array([[axes.images[0].get_array() for axes in row] for row in grid])
    as_hwc = pixels.permute(0, 2, 3, 1).numpy()
    assert np.allclose(shown[0], as_hwc, atol=1e-6)
    assert np.allclose(shown[2], adversarial.permute(0, 2, 3, 1).numpy(), atol=1e-6)
    # 15 is the largest whole factor that keeps 4/255 within REACH of mid-grey: nothing saturates.
    assert np.allclose(shown[1], 0.5 + 15 * (shown[2] - shown[0]), atol=1e-5)
    assert np.abs(shown[1] - 0.5).max() <= REACH < 0.5
    assert grid[1, 0].get_ylabel() == "perturbation × 15"
    for said in ("m on d; pgd-20; space native", "the first 4", "4/255", "drawn × 15"):
        assert said in setting_of(figure)
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
    with pytest.raises(ValueError, match="amplify=40 saturates"):
        plot_examples(pixels, adversarial, names, names, names, amplify=40)
    with pytest.raises(ValueError, match="3 images but 2 names"):
        plot_examples(pixels, adversarial, names, names[:2], names)
