"""A state directory is of one classifier and one attack, also where both are plain functions."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass

import pytest
import torch
from state_child import Corner, corner_images
from torch import nn

from hf_hierrobust import evaluate
from hf_hierrobust.attacks import PGD, cross_entropy, margin
from hf_hierrobust.classifiers import Classifier
from hf_hierrobust.evaluation import StateError, records_hash

CLASSES = 12


def linear(change=None):
    """Logits of twelve classes, most of which no first image is near."""
    weight = torch.randn(3, CLASSES, generator=torch.Generator().manual_seed(0))
    if change is not None:
        change(weight)
    return weight


def last_exchanged(weight):
    weight[:, [9, 11]] = weight[:, [11, 9]]


def last_nudged(weight):
    weight[:, 9] += 1e-5


def closing(weight):
    return lambda pixels: (pixels.mean((2, 3)) - 0.5) @ weight


class Holding:
    def __init__(self, weight):
        self.weight, self.calls, self.last = weight, 0, None

    def __call__(self, pixels):
        self.calls, self.last = self.calls + 1, pixels
        return (pixels.mean((2, 3)) - 0.5) @ self.weight


class Net(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weights = [weight]

    def forward(self, pixels):
        return (pixels.mean((2, 3)) - 0.5) @ self.weights[0]


HOLDERS = {
    "closure": closing,
    "object": Holding,
    "network": Net,
    "partial": lambda weight: functools.partial(lambda w, x: (x.mean((2, 3)) - 0.5) @ w, weight),
    "array": lambda weight: functools.partial(
        lambda w, x: (x.mean((2, 3)) - 0.5) @ torch.from_numpy(w), weight.numpy()
    ),
    "wrapped": lambda weight: Classifier(closing(weight), mean=[0.0], std=[1.0]),
}


def measure(folder, net, attack=None):
    data = corner_images(8)
    return evaluate(net, data, attack=attack or PGD(num_steps=1), state_dir=folder, progress=False)


@pytest.mark.parametrize("change", [last_exchanged, last_nudged])
@pytest.mark.parametrize("holder", HOLDERS)
def test_other_tensors_behind_a_callable_are_refused(holder, change, tmp_path):
    make = HOLDERS[holder]
    first = measure(tmp_path, make(linear()))
    assert records_hash(measure(tmp_path, make(linear()))) == records_hash(first)
    with pytest.raises(StateError, match="weights: "):
        measure(tmp_path, make(linear(change)))


def test_what_a_classifier_counts_and_caches_is_no_change(tmp_path):
    net = Holding(linear())
    first = measure(tmp_path, net)
    assert net.calls and records_hash(measure(tmp_path, net)) == records_hash(first)


def hidden(weight):
    """A function whose weights nothing leads to: its answers alone tell."""
    table = {id(weight): weight}
    generator = (table for _ in iter(int, 1))
    return lambda pixels: (pixels.mean((2, 3)) - 0.5) @ next(generator)[id(weight)]


def test_all_logits_count_where_weights_are_hidden(tmp_path):
    measure(tmp_path, hidden(linear()))
    (facts,) = json.loads((tmp_path / "manifest.json").read_text())["sets"].values()
    assert len(facts["answers of level 0, network at native size"]) == CLASSES
    with pytest.raises(StateError, match="answers of level 0"):
        measure(tmp_path, hidden(linear(last_exchanged)))


def test_infinite_logits_hide_no_change(tmp_path):
    def masked(scale):
        mask = torch.tensor([0.0, 0.0, 0.0, -torch.inf])
        generator = iter(lambda: scale, None)
        return lambda pixels: Corner()(pixels) * next(generator) + mask

    measure(tmp_path, masked(1.0))
    with pytest.raises(StateError, match="answers of level 0"):
        measure(tmp_path, masked(1.5))


def scaled(scale):
    return lambda pixels: Corner()(pixels) * (scale if pixels.mean() > 2 else 1.0)


def test_a_constant_that_the_first_image_does_not_show_is_refused(tmp_path):
    measure(tmp_path, scaled(1.0))
    with pytest.raises(StateError, match="code: "):
        measure(tmp_path, scaled(-1.0))


def weighted(weight):
    return lambda logits, labels: weight * cross_entropy(logits, labels)


@dataclass(kw_only=True)
class Own(PGD):
    name = "own"
    sign = 1

    def run(self, victim, pixels, labels, generator):
        return super().run(victim, pixels, labels, generator)


@dataclass(kw_only=True)
class Otherwise(PGD):
    name = "own"
    sign = -1

    def run(self, victim, pixels, labels, generator):
        return pixels


def named_margin(logits, labels):
    return -margin(logits, labels)


named_margin.__name__ = "margin"
LOSSES = {
    "lambda": (lambda z, y: cross_entropy(z, y), lambda z, y: -cross_entropy(z, y)),
    "closure": (weighted(1.0), weighted(-1.0)),
    "partial": (functools.partial(weighted(1.0)), functools.partial(weighted(2.0))),
    "name": (margin, named_margin),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_another_loss_of_the_same_name_is_refused(kind, tmp_path):
    one, other = (PGD(num_steps=1, loss=loss) for loss in LOSSES[kind])
    first = measure(tmp_path, Corner(), one)
    assert records_hash(measure(tmp_path, Corner(), one)) == records_hash(first)
    with pytest.raises(StateError, match="code of "):
        measure(tmp_path, Corner(), other)


def test_another_attack_of_the_same_name_is_refused(tmp_path):
    measure(tmp_path, Corner(), Own(num_steps=1))
    with pytest.raises(StateError, match="code of ce at budget 1"):
        measure(tmp_path, Corner(), Otherwise(num_steps=1))
