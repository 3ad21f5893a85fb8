"""Budgets, projections and steps of the threat model."""

from __future__ import annotations

import math

import pytest
import torch

from hf_hierrobust.threat import ThreatModel, format_eps, parse_eps, unit


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("4/255", 4 / 255),
        (" 8 / 255 ", 8 / 255),
        ("0.5/255", 0.5 / 255),
        ("0.0157", 0.0157),
        ("1e-3", 1e-3),
        (0.03, 0.03),
        (1 / 255, 1 / 255),
    ],
)
def test_parse_eps_reads_fractions_and_floats(value, expected):
    assert parse_eps(value) == expected


@pytest.mark.parametrize("value", ["0", 0, 0.0, -1 / 255, "-4/255", math.nan, "nan"])
def test_parse_eps_refuses_what_is_not_positive(value):
    with pytest.raises(ValueError, match=r"step_size=.* must be positive"):
        parse_eps(value, "step_size")


@pytest.mark.parametrize("value", [4, 4.0, "4", "8/2"])
def test_parse_eps_suggests_grey_levels(value):
    with pytest.raises(ValueError, match=r"did you mean 4/255\?"):
        parse_eps(value)


def test_parse_eps_hint_covers_1_to_255_only():
    with pytest.raises(ValueError, match=r"eps=1 .*did you mean 1/255\?"):
        parse_eps(1)
    with pytest.raises(ValueError, match=r"did you mean 255/255\?"):
        parse_eps("255")
    for value in (256, "1e9", math.inf, "inf"):
        with pytest.raises(ValueError, match=r"covers the whole pixel range") as caught:
            parse_eps(value)
        assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize("value", ["four", "", "4/255/2", "1/0", "4/", "/255", None, [4], 10**400])
def test_parse_eps_refuses_non_numbers(value):
    with pytest.raises(ValueError, match=r"eval_eps=.* is not a number: give a fraction like '4/255'"):
        parse_eps(value, "eval_eps")


@pytest.mark.parametrize(
    ("eps", "text"),
    [
        (1 / 255, "1/255"),
        (4 / 255, "4/255"),
        (16 / 255, "16/255"),
        (0.5 / 255, "0.5/255"),
        (100.25 / 255, "100.25/255"),
        (0.03, "0.03"),
        (1e-9, "1e-09"),
    ],
)
def test_format_eps_writes_levels_where_they_are_meant_and_can_be_read_back(eps, text):
    assert format_eps(eps) == text
    assert parse_eps(text) == pytest.approx(eps, rel=1e-6)


def test_threat_model_reads_and_checks_its_fields():
    assert ThreatModel(eps="4/255").eps == 4 / 255
    assert ThreatModel.parse("4/255") == ThreatModel(norm="linf", eps=4 / 255)
    assert ThreatModel.parse("l2:2.5", space="model") == ThreatModel(norm="l2", eps=2.5, space="model")
    assert str(ThreatModel(eps="4/255")) == "linf:4/255"
    assert ThreatModel.parse(str(ThreatModel(eps="0.5/255"))) == ThreatModel(eps=0.5 / 255)
    assert str(ThreatModel(norm="l2", eps=0.5)) == "l2:0.5"
    with pytest.raises(ValueError, match=r"norm='l1' is unknown: choose 'linf' or 'l2'"):
        ThreatModel(norm="l1")
    with pytest.raises(ValueError, match=r"space='input' is unknown"):
        ThreatModel(space="input")
    with pytest.raises(ValueError, match=r"did you mean 4/255"):
        ThreatModel.parse("linf:4")
    for radius in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"eps=.* must be (positive|finite)"):
            ThreatModel(norm="l2", eps=radius)
    with pytest.raises(ValueError, match=r"eps='half' is not a number"):
        ThreatModel.parse("l2:half")


THREATS = [ThreatModel(eps=0.1), ThreatModel(norm="l2", eps=0.7)]


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels with black and white areas, and perturbations from far inside to far outside the ball."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(6, 3, 8, 8, generator=generator)
    pixels[:, :, :2] = 0
    pixels[:, :, 2:4] = 1
    scale = torch.tensor([1e-4, 1e-2, 0.05, 0.2, 1, 100]).view(-1, 1, 1, 1)
    return scale * torch.randn(6, 3, 8, 8, generator=generator), pixels


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_projection_is_in_ball_and_box_and_idempotent(threat, batch):
    delta, pixels = batch
    projected = threat.project(delta, pixels)
    # One float32 rounding step, for eps itself has none in the linf norm.
    assert (threat.size(projected) <= threat.eps * (1 + 3e-7)).all()
    assert (pixels + projected).min() >= 0
    assert (pixels + projected).max() <= 1
    assert torch.allclose(threat.project(projected, pixels), projected, rtol=3e-7, atol=0)
    assert (projected[-1] != 0).any() and not torch.equal(projected, delta)


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_projection_keeps_what_is_allowed(threat, batch):
    delta, _ = batch
    grey = torch.full_like(delta, 0.5)
    assert torch.equal(threat.project(delta[:1], grey[:1]), delta[:1])


def test_l2_projection_is_radial_and_linf_projection_clips(batch):
    delta, _ = batch
    grey = torch.full_like(delta, 0.5)
    far = threat_direction = delta[3:5]
    radial = THREATS[1].project(far, grey[3:5])
    assert torch.allclose(THREATS[1].size(radial), torch.tensor([0.7, 0.7]))
    assert torch.allclose(radial / 0.7, unit(threat_direction), atol=1e-6)
    assert torch.equal(THREATS[0].project(far, grey[3:5]), far.clamp(-0.1, 0.1))


def test_size_is_the_norm_over_all_channels_and_pixels():
    delta = torch.zeros(2, 3, 4, 4)
    delta[0, 0, 0, 0], delta[0, 2, 3, 3] = 3, -4
    assert THREATS[0].size(delta).tolist() == [4, 0]
    assert THREATS[1].size(delta).tolist() == [5, 0]


@pytest.mark.parametrize("threat", THREATS, ids=str)
@pytest.mark.parametrize("scale", [1.0, 1e6, 1e-15, 1e-30])
def test_ascent_is_of_unit_size_however_small_the_gradient(threat, scale):
    gradient = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    step = threat.ascent(gradient * scale)
    assert torch.allclose(threat.size(step), torch.ones(3), atol=1e-5)
    gain = (step * gradient).flatten(1).sum(1)
    dual = gradient.flatten(1).norm(1 if threat.norm == "linf" else 2, dim=1)
    assert torch.allclose(gain, dual, rtol=1e-4), "not the steepest direction"


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_zero_gradient_stays_zero_beside_others(threat):
    gradient = torch.zeros(2, 3, 4, 4)
    gradient[1, 0, 0, 0] = 2e-3
    step = threat.ascent(gradient)
    assert torch.equal(step, gradient.sign())
    assert torch.equal(unit(gradient, order=1), gradient.sign())


def test_unit_divides_by_the_asked_norm():
    gradient = torch.tensor([3.0, -4.0]).view(1, 1, 1, 2)
    assert torch.allclose(unit(gradient).flatten(), torch.tensor([0.6, -0.8]))
    assert torch.allclose(unit(gradient, order=1).flatten(), torch.tensor([3 / 7, -4 / 7]))
