"""Sets of one class, two, a thousand, one image, or another number of classes: measured, or refused."""

from __future__ import annotations

import itertools

import datasets
import pytest
import torch
from state_child import Corner, corner_images, measure_corner
from tiny_data import make_images
from torch import nn
from torch.utils.data import TensorDataset

from hf_hierrobust import evaluate
from hf_hierrobust.attacks import PGD
from hf_hierrobust.data import ClassSet

QUICK = {"attack": PGD(eps="2/255", step_size="2/255", num_steps=2), "progress": False}
WORDS = ("cat", "dog", "oak", "rose", "animal", "plant", "thing", "picture")


def linear(classes: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(108, classes))


def labelled_by(net: nn.Module, count: int) -> TensorDataset:
    pixels = corner_images(count).tensors[0]
    return TensorDataset(pixels, net(pixels / 255).argmax(1))


def labelled(labels: list[int]) -> TensorDataset:
    return TensorDataset(corner_images(len(labels)).tensors[0], torch.tensor(labels))


def named_images(names, count: int = 6) -> datasets.Dataset:
    labels = [index % len(names) for index in range(count)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(names))})
    return datasets.Dataset.from_dict({"image": make_images(count)["image"][:], "label": labels}, features)


@pytest.mark.parametrize("classes", [2, 3, 1000])
@pytest.mark.parametrize("count", [1, 9])
def test_two_classes_a_thousand_and_one_image_are_measured(classes, count):
    net = linear(classes)
    data = labelled_by(net, count)
    (record,) = evaluate(net, data, **QUICK)
    assert (record.num_classes, record.num_samples, record.clean_accuracy) == (classes, count, 1)
    # A linear network's margin falls by eps times the l1 norm of the difference of two rows, within [0, 1].
    pixels, labels = data.tensors[0].flatten(1) / 255, data.tensors[1]
    weight, bias = net[1].weight.detach(), net[1].bias.detach()
    rows = weight[labels][:, None] - weight[None]
    clean = (rows * pixels[:, None]).sum(2) + bias[labels][:, None] - bias[None]
    others = torch.nn.functional.one_hot(labels, classes) == 0
    exact = float(((clean - 2 / 255 * rows.abs().sum(2) > 0) | ~others).all(1).float().mean())
    assert record.robust_accuracy >= exact - 1e-6  # with two classes the gradient leads straight there
    assert classes > 2 or record.robust_accuracy == pytest.approx(exact)


TWO, THOUSAND = WORDS[:2], tuple(map(" ".join, itertools.product(WORDS, repeat=4)))[:1000]


@pytest.mark.parametrize("names", [TWO, THOUSAND], ids=["two", "thousand"])
@pytest.mark.parametrize("count", [1, 6])
def test_a_dual_encoder_has_as_many_prompts(names, count, tiny_clip_dir):
    (record,) = evaluate(tiny_clip_dir, named_images(names, count), **QUICK)
    assert (record.num_classes, record.num_samples) == (len(names), count)


def test_one_class_or_one_superclass_is_refused(tiny_clip_dir):
    with pytest.raises(ValueError, match=r"leaf level of .* has 1 class, so that every image is right"):
        evaluate(tiny_clip_dir, named_images(WORDS[:1]), **QUICK)
    with pytest.raises(ValueError, match=r"superclass level of .* has 1 class"):
        evaluate(tiny_clip_dir, named_images(WORDS[:2]), tree={w: ["thing"] for w in WORDS[:2]}, **QUICK)
    with pytest.raises(ValueError, match="returned one score an image"):
        evaluate(linear(1), corner_images(), **QUICK)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"net": linear(3)}, r"label 3, outside the allowed range 0..2"),
        ({"class_set": ClassSet.from_names(["a", "b", "c"])}, "gives 4 logits, but 'custom' has 3 classes"),
        ({"class_set": ClassSet.from_names(list("abcde"))}, "gives 4 logits, but 'custom' has 5 classes"),
        (
            {"data": labelled([0, 1, -1, 2])},
            "row 2 .* label -1",
        ),
        ({"data": TensorDataset(torch.zeros(0, 3, 6, 6), torch.zeros(0, dtype=torch.long))}, "has no rows"),
        ({"num_samples": 0}, "num_samples=0 must be an integer, at least 1"),
    ],
    ids=["more labels", "fewer names", "more names", "no label", "no image", "no sample"],
)
def test_a_wrong_count_is_refused_and_leaves_no_state(options, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        measure_corner(tmp_path / "state", **options)
    assert not (tmp_path / "state").exists()


def test_more_samples_than_images_are_all_images():
    assert measure_corner(net=Corner(), num_samples=500)[0].num_samples == 22
