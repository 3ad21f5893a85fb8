"""Networks behind callables are measured where they are told to be, and keep their identity."""

from __future__ import annotations

import functools

import pytest
import torch
from state_child import Corner, corner_images
from torch import nn

from hf_hierrobust import evaluate
from hf_hierrobust.classifiers import Classifier
from hf_hierrobust.evaluation.record_files import merge_records, read_records, save_records

WRAPPERS = {
    "classifier": lambda net: Classifier(net),
    "function": lambda net: lambda pixels: net(pixels),
    "partial": lambda net: functools.partial(net.forward),
    "twice": lambda net: Classifier(lambda pixels: net(pixels)),
}


def turned(net: nn.Module) -> nn.Module:
    with torch.no_grad():
        net.weight.copy_(net.weight.roll(1, 0))
    return net


def record(net, **options):
    options = {"attack": "pgd-ce", "num_steps": 1, "progress": False} | options
    return evaluate(net, corner_images(8), **options)[0]


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_two_networks_stay_two_in_merged_records(wrapper, tmp_path):
    wrap, files = WRAPPERS[wrapper], []
    for name, net in (("a", Corner()), ("b", turned(Corner()))):
        found = record(wrap(net))
        assert found.model_hash == record(net).model_hash
        save_records(tmp_path / f"{name}.json", [found])
        files.append(read_records(tmp_path / f"{name}.json"))
    merged, notes = merge_records(files)
    assert len(merged) == 2 and notes == []


def test_a_classifier_is_called_what_its_network_is():
    assert record(Classifier(Corner())).model == "Corner"
    assert record(Classifier(functools.partial(Corner()))).model == "Corner"


def test_normalisation_and_plain_tensors_are_part_of_the_weights():
    def function(weight):
        return lambda pixels: Corner()(pixels) @ weight

    eye = torch.eye(4)
    found = [record(Classifier(Corner(), mean=[mean])).model_hash for mean in (0.0, 0.25)]
    found += [record(function(weight)).model_hash for weight in (eye, eye.flip(0))]
    assert len(set(found)) == 4 and None not in found
    assert record(lambda pixels: pixels.mean((2, 3))[:, :2].repeat(1, 2)).model_hash is None


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_device_moves_the_network_behind_a_callable(wrapper, monkeypatch):
    moved, to = [], nn.Module.to

    def noted(self, *args, **kwargs):
        moved.append((type(self), *args))
        return to(self, *args, **kwargs)

    monkeypatch.setattr(nn.Module, "to", noted)
    record(WRAPPERS[wrapper](Corner()), device="cpu")
    assert moved == [(Corner, "cpu")]
