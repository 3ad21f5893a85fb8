"""What callables compute with is found, and told apart from what they write to."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from hf_hierrobust.attacks import PGD, cross_entropy, margin
from hf_hierrobust.classifiers import Classifier, modules_behind
from hf_hierrobust.classifiers.behind import code_digest, constants_behind, weights_behind

GLOBAL = torch.zeros(3)


def weights(value: float) -> torch.Tensor:
    return torch.tensor([1.0, value])


class Holding:
    """A classifier with a tensor, a constant, a cache and a count."""

    def __init__(self, value: float, scale: float = 1.0):
        self.weight, self.scale, self.last, self.calls = weights(value), scale, None, 0

    def __call__(self, pixels):
        self.last, self.calls = pixels, self.calls + 1
        return pixels.mean((2, 3)) * self.scale


class Net(nn.Module):
    """A network with a plain tensor, which no ``state_dict`` has, and a constant."""

    def __init__(self, value: float, scale: float = 1.0):
        super().__init__()
        self.hidden, self.scale = [weights(value)], scale

    def forward(self, pixels):
        return pixels


def closing(value):
    held = weights(value)
    return lambda pixels: pixels * held


def by_default(value):
    def classify(pixels, held=None):
        return pixels * held

    classify.__defaults__ = (weights(value),)
    return classify


TENSORS = {
    "a closure": closing,
    "a default": by_default,
    "a partial": lambda value: functools.partial(torch.mul, weights(value)),
    "an attribute": Holding,
    "a bound method": lambda value: Holding(value).__call__,
    "a list in a network": Net,
    "a network within": lambda value: nn.Sequential(nn.ReLU(), Net(value)),
    "an array": lambda value: functools.partial(np.multiply, np.array([1.0, value])),
    "a list": lambda value: functools.partial(torch.add, [[weights(value)]]),
    "a mean": lambda value: Classifier(nn.ReLU(), mean=[value]),
    "behind a classifier": lambda value: Classifier(closing(value), mean=[0.5]),
}


@pytest.mark.parametrize("where", TENSORS)
def test_tensors_are_found_wherever_they_are_held(where):
    make = TENSORS[where]
    assert weights_behind(make(0.25)) == weights_behind(make(0.25)) != weights_behind(make(0.5))


def test_a_network_is_found_behind_every_wrapper_with_the_same_weights():
    net = nn.Linear(3, 2)
    found = weights_behind(net)
    for one in (Classifier(net), lambda x: net(x), functools.partial(net), Classifier(lambda x: net(x))):
        assert modules_behind(one) == [net] and weights_behind(one) == found


def loss_over(scale):
    return lambda logits, labels: scale * cross_entropy(logits, labels)


class Loss:
    def __init__(self, scale):
        self.scale, self.calls, self.seen = scale, 0, []

    def __call__(self, logits, labels):
        self.calls += 1
        self.seen.append(len(labels))
        return self.scale * cross_entropy(logits, labels)


def within(scale):
    def loss(logits, labels):
        def inner(values):
            return values * scale

        return inner(margin(logits, labels))

    return loss


def named(scale):
    args = SimpleNamespace(scale=scale, output="somewhere")
    return lambda logits, labels: args.scale * margin(logits, labels)


LOSSES = {
    "a closure": loss_over,
    "a partial": lambda scale: functools.partial(lambda z, y, w: w * margin(z, y), w=scale),
    "a default": lambda scale: lambda z, y, w=scale: w * margin(z, y),
    "an object": Loss,
    "a bound method": lambda scale: Loss(scale).__call__,
    "a function within": within,
    "a namespace": named,
    "weights": lambda scale: nn.CrossEntropyLoss(weight=torch.tensor([1.0, scale]), reduction="none"),
    "a module's constant": lambda scale: nn.CrossEntropyLoss(label_smoothing=scale, reduction="none"),
    "another function": lambda scale: margin if scale < 0.5 else cross_entropy,
}


@pytest.mark.parametrize("kind", LOSSES)
def test_losses_of_one_name_are_told_apart(kind):
    make = LOSSES[kind]
    assert code_digest(make(0.25)) == code_digest(make(0.25)) != code_digest(make(0.5))
    one, other = (PGD(loss=make(scale)).describe() for scale in (0.25, 0.5))
    assert one["loss_code"] != other["loss_code"]


def test_the_sign_of_a_lambda_counts():
    one, other = (lambda z, y: margin(z, y)), (lambda z, y: -margin(z, y))
    assert code_digest(one) != code_digest(other)


def test_what_a_loss_writes_to_is_no_part_of_it():
    loss = Loss(2.0)
    before = code_digest(loss)
    loss(torch.zeros(1, 2), torch.tensor([0]))
    assert loss.calls == 1 and code_digest(loss) == before


def test_code_and_constants_of_a_classifier():
    assert constants_behind(Holding(0.25)) == constants_behind(Holding(0.25))
    assert constants_behind(Holding(0.25)) != constants_behind(Holding(0.25, scale=2.0))
    assert constants_behind(Net(0.25)) != constants_behind(Net(0.25, scale=2.0))
    assert constants_behind(lambda x: x + GLOBAL) != constants_behind(lambda x: x - GLOBAL)
    assert constants_behind(nn.LayerNorm(3, eps=1e-5)) != constants_behind(nn.LayerNorm(3, eps=1e-3))
