"""Checks of a robust accuracy: what masks its gradients is caught, what does not is not."""

from __future__ import annotations

import contextlib
import functools
import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hf_hierrobust.attacks import PGD, NoGradientError, cross_entropy
from hf_hierrobust.evaluation import probes
from hf_hierrobust.evaluation.plan import build_attacks
from hf_hierrobust.evaluation.probes import Probed, diagnose

CLASSES, EPS = 4, 8 / 255


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Fewer steps and queries than by default."""
    monkeypatch.setattr(probes, "MORE_STEPS", 50)
    monkeypatch.setattr(probes, "QUERIES", 60)


def images(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise (count, 3, 12, 12) whose class says which quarter is brighter."""
    generator = torch.Generator().manual_seed(seed)
    pixels = 0.5 + 0.18 * torch.randn(count, 3, 12, 12, generator=generator)
    labels = torch.arange(count) % CLASSES
    for row, label in enumerate(labels.tolist()):
        top, left = 6 * (label // 2), 6 * (label % 2)
        pixels[row, :, top : top + 6, left : left + 6] += 0.12
    return pixels.clamp(0, 1), labels


class Convolutions(nn.Module):
    def __init__(self, dropout: float = 0.0):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(12 * 9, CLASSES)

    def forward(self, x):
        return self.head(self.drop(F.avg_pool2d(F.gelu(self.stem(x)), 4).flatten(1)))


@functools.cache
def trained(kind: str) -> nn.Module:
    """A linear or convolutional network, the latter also against FGSM."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(432, CLASSES)) if kind == "linear" else Convolutions()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    pixels, labels = images(512, seed=1)
    for step in range(150):
        rows = torch.arange(64) + 64 * (step % 8)
        x, y = pixels[rows], labels[rows]
        if kind == "adversarial":
            x = x.clone().requires_grad_()
            (slope,) = torch.autograd.grad(cross_entropy(net(x), y).sum(), x)
            x = (x + EPS * slope.sign()).clamp(0, 1).detach()
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net.eval()


def survivors(classifier, attacks, pixels, labels) -> torch.Tensor:
    """The images that the reported attacks leave, which an evaluation knows."""
    standing = torch.ones(len(pixels), dtype=torch.bool)
    for attack in attacks:
        rows, generator = standing.clone(), torch.Generator().manual_seed(0)
        with torch.random.fork_rng(), contextlib.suppress(NoGradientError):
            found = attack(classifier, pixels[rows], labels[rows], generator=generator)
            standing[rows] = found.robust_correct
    return standing


def failed(classifier, attack="pgd", **more):
    pixels, labels = images(40, seed=2)
    values = {"attacks": build_attacks(attack, eps=EPS), "pixels": pixels, "labels": labels} | more
    seen = {name: values[name] for name in ("attacks", "pixels", "labels")}
    relatives, standing = {"relatives": {}}, survivors(classifier, **seen)
    found, cost = diagnose(Probed(classifier=classifier, standing=standing, **relatives | values))
    assert cost.forwards >= 2
    return {check.name: check for check in found if check.verdict == "failed"}, found


@pytest.mark.parametrize("kind", ["linear", "convolutional", "adversarial"])
def test_honest_networks_pass(kind):
    bad, found = failed(trained(kind))
    assert not bad and {check.verdict for check in found} == {"passed", "not applicable"}
    numbers = {check.name: check.numbers for check in found}
    assert 0.02 < numbers["one_step"]["standing"] < 0.98, "neither broken nor safe"
    assert len(found) == 12


def quantised(net):
    return lambda x: net((x * 8).round() / 8)


def inflated(net):
    return lambda x: 100 * net(x)


def saturated(net):
    return lambda x: (1e3 * net(x)).softmax(1)


def noisy(net):
    return lambda x: net(x + 1e-3 * torch.randn_like(x))


def dropping(net):
    """Dropout that no evaluation mode switches off."""
    return lambda x: net(F.dropout(x, 0.2, training=True))


def skipping(net):
    """Stochastic depth of whole batches: two forwards are equal four times out of five."""
    return lambda x: net(x) * (torch.rand(()) > 0.1) + 0.5 * net(x.flip(3))


def skipping_in_python(net):
    random.seed(0)
    return lambda x: net(x) * (random.random() > 0.3) + 0.5 * net(x.flip(3))


def batch_centred(net):
    """Statistics of the batch, which no evaluation mode replaces."""
    return lambda x: net(x - 0.5 * x.mean(0))


def twinned(net):
    return lambda x: net(x)[:, [0, 1, 2, 3, 0]]


def shattered(net):
    return lambda x: net(x + 0.01 * (400 * x).sin())


def flipped(net):
    """The gradient points the wrong way, by a rule of its own for autograd."""

    class Back(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return -gradient

    return lambda x: net(Back.apply(x))


CAUGHT = {
    quantised: "gradients",
    inflated: "scale",
    saturated: "gradients",
    noisy: "randomised_outputs",
    dropping: "randomised_outputs",
    skipping: "randomised_outputs",
    skipping_in_python: "randomised_outputs",
    batch_centred: "randomised_outputs",
    twinned: "twins",
    shattered: "smoothed_gradients",
    flipped: "large_eps",
}


@pytest.mark.parametrize("mask", CAUGHT, ids=lambda mask: mask.__name__)
@pytest.mark.filterwarnings("ignore::hf_hierrobust.classifiers.UnsteadyClassifierWarning")
def test_what_masks_its_gradients_is_caught(mask):
    bad, _ = failed(mask(trained("linear")), attack="pgd-ce")
    assert CAUGHT[mask] in bad and bad[CAUGHT[mask]].why


def test_training_mode_is_named_where_it_matters_and_leaves_no_trace():
    torch.manual_seed(0)
    still = Convolutions().train()
    assert "train_mode" not in failed(still)[0] and still.training
    net = nn.Sequential(nn.BatchNorm2d(3), Convolutions(dropout=0.5)).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    bad, _ = failed(net)
    assert bad["train_mode"].numbers["training_modules"] == 6 and "randomised_outputs" not in bad
    assert net.training and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_a_score_that_another_score_of_the_model_breaks():
    net = trained("linear")
    bad, found = failed(quantised(net), relatives={"hyperbolic": net})
    assert "made against hyperbolic broke" in bad["transfer_between_scores"].why
    bad, found = failed(net, relatives={"hyperbolic": quantised(net)})
    assert not bad and found[-2].name == "transfer_between_scores" and found[-2].verdict == "passed"


def test_multipliers_and_merged_prompts_are_facts_of_the_caller():
    net = trained("linear")
    assert failed(net, multiplier=100.0)[0] == {}
    bad, _ = failed(net, multiplier=1e3, merged=1)
    assert set(bad) == {"scale", "twins"} and "1 classes share the prompt" in bad["twins"].why


def test_an_attack_that_gives_up_early_is_caught():
    weak = PGD(eps=EPS, num_steps=1, step_size=1e-4, random_start="zero")
    bad, _ = failed(trained("convolutional"), attack=weak)
    assert {"one_step", "more_steps"} <= set(bad)


def test_l2_budgets_are_probed_too():
    pixels, labels = images(32, seed=2)
    attacks = build_attacks("pgd", eps=0.5, norm="l2")
    net = trained("linear")
    probed = {"attacks": attacks, "pixels": pixels, "labels": labels}
    found, _ = diagnose(Probed(classifier=net, standing=survivors(net, **probed), relatives={}, **probed))
    assert {check.verdict for check in found} == {"passed", "not applicable"}
    masked = saturated(net)
    found, _ = diagnose(
        Probed(classifier=masked, standing=survivors(masked, **probed), relatives={}, **probed)
    )
    assert any(check.verdict == "failed" for check in found)


def test_nothing_right_when_clean_leaves_what_needs_no_label():
    pixels, _ = images(8, seed=2)
    net = trained("linear")
    with torch.no_grad():
        wrong = (net(pixels).argmax(1) + 1) % CLASSES
    values = {"attacks": build_attacks("pgd", eps=EPS), "pixels": pixels, "relatives": {}}
    none = torch.zeros(8, dtype=torch.bool)
    found, cost = diagnose(Probed(classifier=net, labels=wrong, standing=none, **values))
    assert [check.name for check in found] == ["twins", "randomised_outputs", "train_mode"]
    assert cost == (2.25, 0)


@pytest.mark.parametrize("name", ["cosine", "hyperbolic"])
def test_an_honest_clip_passes(clip, found, name):
    """The calibrated tiny model, on the classes that it sees; attacks at which half of the images fall."""
    pixels = clip[2]
    one = found[0, name].classifier
    other = found[0, "hyperbolic" if name == "cosine" else "cosine"].classifier
    generator = torch.Generator().manual_seed(0)
    pixels = torch.cat([pixels, (pixels + 0.1 * torch.randn(pixels.shape, generator=generator)).clamp(0, 1)])
    with torch.no_grad():
        labels = one(pixels).argmax(1)
    more = {"attacks": build_attacks("pgd", eps=2 / 255), "pixels": pixels, "labels": labels}
    bad, results = failed(one, relatives={"other": other}, **more)
    assert not bad, bad
    assert {check.name: check.verdict for check in results}["transfer_between_scores"] == "passed"


def test_no_way_back_to_the_pixels_is_caught():
    net = trained("linear")
    bad, found = failed(lambda x: net((x * 255).to(torch.uint8) / 255), attack="square")
    assert bad["gradients"].numbers["zero"] == 1 and len(found) == 4
