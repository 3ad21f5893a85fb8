"""TTC: the test-time counterattack, against a loop of its own, and as what attacks meet."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from hf_hierrobust.attacks import PGD, Victim
from hf_hierrobust.classifiers import TTC, Averaged, Classifier, modules_behind, passes_of


def by_hand(encode, x, noise, options):
    """One image after the other, as the paper's algorithm says it."""
    anchor = encode(x).detach()
    delta = ((x + noise).clamp(0, 1) - x).clone()
    ratio = (encode(x + delta).detach() - anchor).norm() / anchor.norm()
    if ratio >= options.threshold:
        return delta, False
    iterates = [delta]
    for _ in range(options.num_steps):
        delta = iterates[-1].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(((encode(x + delta) - anchor) ** 2).sum(), delta)
        delta = delta.detach() + options.step_size * gradient.sign()
        iterates.append((x + delta.clamp(-options.eps, options.eps)).clamp(0, 1) - x)
    weights = [math.exp(options.beta * j) for j in range(len(iterates))]
    return sum(w * d for w, d in zip(weights, iterates)) / sum(weights), True


@pytest.mark.parametrize("threshold", [0.0, None, 1e3], ids=["never", "some", "always"])
def test_it_is_the_papers_algorithm(clip, found, threshold):
    pixels, one = clip[2], found[0, "cosine"].classifier
    options = TTC(threshold=1e3 if threshold is None else threshold)
    torch.manual_seed(3)
    noise = torch.empty_like(pixels).uniform_(-options.eps, options.eps)
    if threshold is None:  # between the images' own ratios
        with torch.no_grad():
            moved = one.features((pixels + noise).clamp(0, 1)) - one.features(pixels)
            ratios = moved.norm(dim=-1) / one.features(pixels).norm(dim=-1)
        options = TTC(threshold=float(ratios.median() + 1e-4))
    wanted = [by_hand(one.features, x[None], n[None], options) for x, n in zip(pixels, noise)]
    torch.manual_seed(3)
    defended = options.around(one)
    got = defended.counterattack(pixels)
    for delta, (expected, _) in zip(got, wanted):
        # a sign may turn where a gradient is all but zero
        assert ((delta - expected[0]).abs() < 1e-5).float().mean() > 0.99
    countered = [stable for _, stable in wanted]
    assert sum(countered) == {0.0: 0, None: 4, 1e3: 8}[threshold]
    assert got.abs().max() <= options.eps + 1e-6 and not got.requires_grad
    assert defended.passes == [8 + 8 + sum(countered), (8 if any(countered) else 0) + sum(countered)]


def test_logits_are_those_of_the_countered_image_and_gradients_pass_by_identity(clip, found):
    pixels, one = clip[2], found[1, "rollup"].classifier
    defended = TTC().around(one)
    torch.manual_seed(0)
    x = pixels.clone().requires_grad_()
    logits = defended(x)
    torch.manual_seed(0)
    delta = defended.counterattack(pixels)
    torch.testing.assert_close(logits, one(pixels + delta))
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), x)
    y = pixels.clone().requires_grad_()
    (plain,) = torch.autograd.grad(one(y + delta)[:, 0].sum(), y)
    torch.testing.assert_close(gradient, plain)
    assert modules_behind(defended) == [clip[0]]
    with torch.no_grad():
        assert not torch.equal(defended(pixels), defended(pixels)), "random"


def test_averaging_over_draws_and_the_meter_of_both(clip, found):
    pixels, one = clip[2], found[0, "hyperbolic"].classifier
    defended = TTC(threshold=1e3).around(one)
    averaged = Averaged(defended, 3)
    torch.manual_seed(1)
    single = [defended(pixels) for _ in range(3)]
    torch.manual_seed(1)
    torch.testing.assert_close(averaged(pixels), sum(single) / 3)
    victim = Victim(defended, averaged)
    x = pixels.clone().requires_grad_()
    victim.gradient(victim.logits(x).sum(1), x)
    # each draw: the image, the noisy one, one step further, the countered one; two gradients of the defence
    assert (victim.forwards, victim.backwards) == (3 * 4 * 8, 3 * 2 * 8 + 3 * 8)
    victim.fooled(pixels, torch.zeros(8, dtype=torch.long))
    assert victim.forwards == 4 * 4 * 8
    assert passes_of(lambda x: x) is None


@pytest.mark.filterwarnings("error")
def test_an_attack_through_it_runs_without_a_word_about_randomness(clip, found):
    model, _, pixels, labels = clip
    defended = TTC().around(found[0, "cosine"].classifier)
    attack = PGD(eps=8 / 255, num_steps=2)
    result = attack(defended, pixels, labels, search=Averaged(defended, 2))
    assert (result.robust_correct <= result.clean_correct).all()
    assert all(p.grad is None for p in model.parameters())
    half = defended.with_autocast(torch.bfloat16)
    assert torch.isfinite(half(pixels)).all() and half.features.__self__.autocast == torch.bfloat16


def test_what_cannot_be_defended_and_options_that_make_no_sense_are_refused():
    with pytest.raises(TypeError, match=r"embedding, which a Classifier does not have"):
        TTC().around(Classifier(nn.Flatten()))
    for options, words in (
        ({"eps": 4}, "did you mean 4/255"),
        ({"num_steps": 0}, "num_steps=0"),
        ({"threshold": -1}, "threshold=-1"),
    ):
        with pytest.raises(ValueError, match=words):
            TTC(**options)
    assert TTC(eps="4/255").describe()["eps"] == pytest.approx(4 / 255)
