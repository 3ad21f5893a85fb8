"""Hashes of weights see every value and its place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from hf_hierrobust.adapters.fingerprints import fingerprints, weights_hash
from hf_hierrobust.classifiers.behind import weights_behind
from hf_hierrobust.digests import digest_of, plain, tensor_digest


def rows_permuted(net):
    net.weight.copy_(net.weight.flip(0))
    net.bias.copy_(net.bias.flip(0))


def columns_swapped(net):
    net.weight[:, [0, 1]] = net.weight[:, [1, 0]]


def one_bit(net):
    net.weight.view(torch.int32)[-1, -1] ^= 1


def tensors_exchanged(net):
    first, second = net.gain.clone(), net.bias.clone()
    net.gain.copy_(second)
    net.bias.copy_(first)


def reshaped(net):
    net.weight = nn.Parameter(net.weight.reshape(4, 3))


def as_integers(net):
    net.gain = net.gain.view(torch.int32)


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, 4, generator=generator))
        self.bias = nn.Parameter(torch.randn(3, generator=generator))
        self.register_buffer("gain", torch.randn(3, generator=generator))


@pytest.mark.parametrize(
    "hash_of", [weights_hash, weights_behind, lambda net: fingerprints(net.state_dict())]
)
@pytest.mark.parametrize(
    "change", [rows_permuted, columns_swapped, one_bit, tensors_exchanged, reshaped, as_integers]
)
def test_any_change_shows(change, hash_of):
    net = Head()
    before = hash_of(net)
    assert hash_of(Head()) == before
    with torch.no_grad():
        change(net)
    assert hash_of(net) != before


def test_tensors_of_every_kind_have_a_digest():
    values = torch.tensor([[0.0, 1.5], [2.0, 0.0]])
    kinds = {
        "scalar": torch.tensor(1.0),
        "empty": torch.zeros(0, 3),
        "bool": values > 1,
        "bfloat16": values.bfloat16(),
        "complex": torch.complex(values, values).conj(),
        "transposed": values.T,
    }
    found = fingerprints(kinds | {"values": values})
    assert len(set(found.values())) == len(found)
    assert tensor_digest(values.T.contiguous()) == found["transposed"]
    assert tensor_digest(values.to_sparse()) == found["values"]


def test_json_of_arrays_and_sets_loses_nothing():
    numbers = np.arange(5000.0)
    swapped = numbers.copy()
    swapped[[2000, 2001]] = swapped[[2001, 2000]]
    assert digest_of({"a": numbers}) != digest_of({"a": swapped})
    assert plain({"b", "a", "c"}) == ["a", "b", "c"]
