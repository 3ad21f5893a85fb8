"""TGA-ZSR and Comp-TGA against their equations (2410.21802, 2603.18598), pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch
from flat_batch import (
    BATCH,
    CLASS_COUNT,
    CLASSES,
    DIM,
    PATCHES,
    SCALE,
    assert_same,
    cosine,
    cross_entropy,
    make_batch,
)

from hf_hierrobust.objectives import OBJECTIVES, TGAZSR, CompTGA, TeCoA

SIDE, RESOLUTION = 3, 7


def make_objective(cls=TGAZSR, **options):
    objective = cls(**({} if cls is TeCoA else {"resolution": RESOLUTION}) | options)
    objective.setup(CLASSES)
    return objective


def bilinear_weights():
    """(R, S): each of R pixels between its two nearest patches, half-pixel centres, clamped at the border."""
    weights = torch.zeros(RESOLUTION, SIDE, dtype=torch.float64)
    for pixel in range(RESOLUTION):
        place = min(max((pixel + 0.5) * SIDE / RESOLUTION - 0.5, 0.0), SIDE - 1.0)
        low = math.floor(place)
        weights[pixel, low] += 1 - (place - low)
        weights[pixel, min(low + 1, SIDE - 1)] += place - low
    return weights


def attention(patches, text, quirks: bool):
    """One image's map (R * R,)."""
    if quirks:
        norms = [sum(patches[p, d] ** 2 for p in range(PATCHES)).sqrt() for d in range(DIM)]
        unit = text / text.norm()
        values = [sum(patches[p, d] / norms[d] * unit[d] for d in range(DIM)) for p in range(PATCHES)]
    else:
        values = [cosine(patch, text) for patch in patches]
    low, high = min(values), max(values)
    scaled = torch.stack([(value - low) / (high - low) for value in values]).view(SIDE, SIDE)
    return (bilinear_weights() @ scaled @ bilinear_weights().T).flatten()


def maps(batch, patches, quirks: bool, complementary: bool):
    rows = []
    for image, label in zip(patches, batch.labels.tolist()):
        row = attention(image, batch.texts[label], quirks)
        if complementary:
            row = row * (1 - attention(image, batch.texts[CLASS_COUNT + label], quirks))
        rows.append(row)
    return rows


def gap(ours, theirs, norm: str):
    total = 0.0
    for a, b in zip(ours, theirs):
        if norm == "cosine":
            total = total + 1 - (a * b).sum() / ((a * a).sum() * (b * b).sum()).sqrt()
        elif norm == "l1":
            total = total + (a - b).abs().sum() / RESOLUTION**2
        else:
            total = total + ((a - b) ** 2).sum().sqrt()
    return total / BATCH


@pytest.mark.parametrize("cls", [TGAZSR, CompTGA])
@pytest.mark.parametrize(
    "options",
    [{}, {"norm": "l1"}, {"norm": "cosine"}, {"official_quirks": True}, {"alpha": 0.5, "beta": 0.0}],
    ids=str,
)
def test_loss_and_gradient_equal_the_reference(cls, options):
    batch, objective = make_batch(), make_objective(cls, **options)
    terms = objective.loss([batch.view()], batch.targets())
    quirks, complementary = options.get("official_quirks", False), cls is CompTGA
    alpha, beta = (0.10, 0.07) if complementary else (0.08, 0.05)
    alpha, beta = options.get("alpha", alpha), options.get("beta", beta)
    attacked, clean, original = (
        maps(batch, patches, quirks, complementary)
        for patches in (batch.attacked_patches, batch.clean_patches, batch.original_patches)
    )
    norm = options.get("norm", "l2")
    expected = {
        "ce": cross_entropy(batch.attacked, batch.texts, batch.labels, SCALE),
        "attacked_attention": alpha * gap(attacked, original, norm),
    }
    if beta:
        expected["clean_attention"] = beta * gap(clean, original, norm)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert_same(terms[name], value, batch.leaves)
    inner = objective.inner_loss(batch.view()._replace(patch_features=None), batch.attack_targets())
    assert_same(inner.mean(), expected["ce"], batch.leaves)


@pytest.mark.parametrize("cls", [TGAZSR, CompTGA])
def test_without_attention_it_is_tecoa(cls):
    batch = make_batch()
    bare, tecoa = make_objective(cls, alpha=0, beta=0, resolution=cls.resolution), make_objective(TeCoA)
    targets = batch.attack_targets()._replace(reference=None)
    view = batch.view()._replace(patch_features=None)
    assert bare.loss([view], targets) == tecoa.loss([view], targets)
    assert torch.equal(bare.inner_loss(view, targets), tecoa.inner_loss(view, targets))
    assert bare.needs == tecoa.needs


def test_quirks_change_the_map_by_more_than_its_scale():
    batch = make_batch()
    ours, theirs = (
        make_objective(official_quirks=quirks).maps(batch.view(), batch.labels) for quirks in (False, True)
    )
    assert float((ours - theirs).detach().abs().max()) > 0.1
    for values in (ours, theirs):
        assert float(values.detach().min()) >= 0 and float(values.detach().max()) <= 1


@pytest.mark.parametrize("norm", ["l2", "l1", "cosine"])
@pytest.mark.parametrize("cls", [TGAZSR, CompTGA])
def test_a_constant_map_has_no_gradient_but_the_others_do(cls, norm):
    batch, objective = make_batch(), make_objective(cls, norm=norm)
    with torch.no_grad():
        batch.attacked_patches[2] = batch.attacked_patches[2, :1]
        batch.attacked_patches[2] += 1e-9 * torch.randn(PATCHES, DIM)  # rounding
    assert not objective.maps(batch.view(), batch.labels)[2].any()
    loss = objective.loss([batch.view()], batch.targets())["attacked_attention"]
    (gradient,) = torch.autograd.grad(loss, batch.attacked_patches)
    assert torch.isfinite(gradient).all() and not gradient[2].any() and gradient[[0, 1, 3, 4]].any()


def test_equal_maps_cost_nothing_and_pull_nowhere():
    """So it is at the first step, where the trained model still is the original."""
    batch, objective = make_batch(), make_objective()
    batch.original_patches = batch.clean_patches.detach()
    loss = objective.loss([batch.view()], batch.targets())["clean_attention"]
    (gradient,) = torch.autograd.grad(loss, batch.clean_patches)
    assert float(loss.detach()) == 0 and not gradient.any()


def test_negated_prompts_follow_the_class_prompts():
    objective = make_objective(CompTGA)
    prompts = objective.nodes.fill("This is a photo of a {}.")
    assert prompts[0] == "This is a photo of a cat." and len(prompts) == 2 * CLASS_COUNT
    assert prompts[CLASS_COUNT:] == [f"This is not a photo of a {name}" for name in CLASSES]
    other = make_objective(CompTGA, negative_template="anything but {}")
    assert other.nodes.fill("{}")[-1] == "anything but rose"
    assert make_objective().nodes.fill("a {}") == [f"a {name}" for name in CLASSES]


def test_needs_follow_the_weights():
    assert OBJECTIVES.get("tga_zsr")().needs == {"text_nodes", "patches", "reference", "clean"}
    assert OBJECTIVES.get("comp_tga")(beta=0).needs == {"text_nodes", "patches", "reference"}


@pytest.mark.parametrize("cls", [TGAZSR, CompTGA])
def test_a_backbone_without_square_patches_is_refused(cls):
    batch, objective = make_batch(), make_objective(cls)
    with pytest.raises(ValueError, match=f"'{cls.name}' needs patch tokens.*use a vision transformer"):
        objective.loss([batch.view()._replace(patch_features=None)], batch.targets())
    with pytest.raises(ValueError, match="8 patch tokens are not those of a square image"):
        objective.loss([batch.view(patches=batch.attacked_patches[:, 1:])], batch.targets())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"beta": "0.05"}, "beta='0.05' must be a number, at least 0"),
        ({"norm": "linf"}, "norm='linf' is unknown: choose one of l2, l1, cosine"),
        ({"official_quirks": 1}, "official_quirks=1 must be true or false"),
        ({"resolution": 0}, "resolution=0 must be a positive number of pixels"),
        ({"negative_template": "not this"}, "negative_template='not this' must contain"),
    ],
    ids=str,
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        CompTGA(**options)
