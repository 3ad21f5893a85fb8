"""Rounding to 8 bits: the nearest image where it does, another in the budget where it does not."""

from __future__ import annotations

import pytest
import torch

from hf_hierrobust.attacks.image.grid import round_to_levels
from hf_hierrobust.threat import ThreatModel

CLEAN = torch.full((1, 3, 4, 4), 100 / 255)


def brighter_than(levels: float):
    """Class 1 where the mean pixel is above 100 + ``levels`` grey levels: a linear classifier."""

    def classifier(pixels):
        score = pixels.mean((1, 2, 3)) * 255 - 100 - levels
        return torch.stack([-score, score], 1)

    return classifier


def rounded(threshold: float, found: float, eps: float, norm="linf"):
    adversarial = CLEAN + found / 255
    return round_to_levels(brighter_than(threshold), CLEAN, adversarial, 0, ThreatModel(norm, eps / 255))


def test_the_nearest_image_is_kept_where_it_fools():
    result = rounded(0.5, 0.9, 1)
    assert result.fooled and result.nearest_fooled and result.how == "nearest"
    assert result.levels.dtype == torch.uint8 and (result.levels == 101).all()


def test_where_rounding_undoes_the_attack_it_is_rounded_away_from_the_clean_image():
    result = rounded(0.4, 0.45, 1)
    assert (result.fooled, result.nearest_fooled, result.how) == (True, False, "outwards")
    assert (result.levels == 101).all()


def test_outwards_may_be_wrong_where_the_gradient_is_right():
    """Half of the pixels went the wrong way by a little: outwards they would cost what the others gain."""
    adversarial = CLEAN.clone()
    adversarial[..., :2] += 0.45 / 255
    adversarial[..., 2:] -= 0.05 / 255
    result = round_to_levels(brighter_than(0.19), CLEAN, adversarial, 0, ThreatModel("linf", 1 / 255))
    assert (result.fooled, result.how) == (True, "by the gradient")
    assert (result.levels[..., :2] == 101).all() and (result.levels[..., 2:] == 100).all()


def test_steps_of_a_grey_level_are_the_last_resort():
    result = rounded(2.5, 0.2, 4)
    assert (result.fooled, result.how) == (True, "by 8-bit steps")
    assert (result.levels == 103).all()


def test_a_budget_below_one_grey_level_leaves_the_clean_image():
    result = rounded(0.2, 0.4, 0.4)
    assert not result.fooled and not result.nearest_fooled and (result.levels == 100).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("seed", range(4))
def test_what_comes_out_is_in_the_budget(norm, seed):
    torch.manual_seed(seed)
    clean = torch.randint(0, 256, (1, 3, 8, 8)) / 255
    threat = ThreatModel(norm, 3 / 255 if norm == "linf" else 0.08)
    adversarial = clean + threat.project(0.03 * torch.randn_like(clean), clean)
    result = round_to_levels(brighter_than(99), clean, adversarial, 0, threat)
    delta = result.levels[None] / 255 - clean
    assert threat.size(delta).item() <= threat.eps * (1 + 1e-3)
    assert delta.abs().max() > 0
