"""Kind 7: NaN logits of any image, clean or attacked, right or wrong, are an error and no verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from hf_hierrobust.attacks import PGD, Attack, NanError, SuperclassAttack, UniversalHierarchicalAttack, Victim
from hf_hierrobust.evaluation import build_attacks
from hf_hierrobust.hierarchy import LabelTree

TREE = LabelTree.from_paths({"a": ["x"], "b": ["x"], "c": ["y"], "d": ["y"]}, name="t")


def broken(net, rows=None, moved=None, images=None):
    """NaN in one logit of some images, or of those that an attack has moved."""

    def classify(pixels):
        logits = net(pixels)
        bad = torch.zeros(len(pixels), dtype=torch.bool)
        if rows is not None and len(pixels) > max(rows):
            bad[rows] = True
        if moved:
            distance = torch.stack([(pixels - one).abs().flatten(1).amax(1) for one in images]).amin(0)
            bad = distance > 1e-6
        return torch.where(bad[:, None] & (torch.arange(4) == 2), torch.nan, logits)

    return classify


@pytest.mark.parametrize("row", [0, 3, 44, 47], ids=["first", "right", "wrong", "last"])
def test_kind07_clean_images(row, net, images, labels):
    with pytest.raises(NanError, match=rf"logits are NaN for 1 of 48 images, first for image {row}:"):
        PGD()(broken(net, [row]), images, labels)


def test_kind07_all_images_wrong(net, images, labels):
    """No image is attacked: nothing but the clean verdict could notice."""
    wrong = (net.eval()(images).argmax(1) + 1) % 4
    with pytest.raises(NanError, match="NaN for 2 of 48 images"):
        PGD()(broken(net, [5, 9]), images, wrong)


@pytest.mark.parametrize("search", [False, True])
@pytest.mark.parametrize("restarts", [1, 2])
def test_kind07_attacked_images(search, restarts, net, images, labels, seeded):
    classifier = broken(net, moved=True, images=images)
    with pytest.raises(NanError, match="the model's logits are NaN"):
        PGD(num_steps=2, restarts=restarts, eps=8 / 255)(
            classifier, images, labels, search=net if search else None, generator=seeded()
        )


def test_kind07_the_search_too(net, images, labels, seeded):
    with pytest.raises(NanError, match="the model's logits are NaN"):
        PGD(num_steps=2)(net, images, labels, search=broken(net, [3]), generator=seeded())


def test_kind07_superclasses(net, images, labels):
    with pytest.raises(NanError, match="logits are NaN for 1 of 48"):
        SuperclassAttack(attack=PGD(), tree=TREE, level=1)(broken(net, [46]), images, labels)


@dataclass(kw_only=True)
class NanPixels(Attack):
    name: ClassVar[str] = "nan_pixels"

    def run(self, victim, pixels, labels, generator):
        return torch.where(torch.arange(len(pixels)).view(-1, 1, 1, 1) == 2, torch.nan, pixels)


def test_kind07_pixels_that_an_attack_returns(net, images, labels):
    with pytest.raises(NanError, match=r"pixels that NanPixels.run returned are NaN for 1 of 42 images"):
        NanPixels()(net, images, labels)


def test_kind07_verdicts_of_a_victim(net, images, labels):
    with pytest.raises(NanError, match="first for image 7"):
        Victim(broken(net.eval(), [7])).fooled(images, labels)


def test_kind07_gradients_of_the_text(images):
    """The sign of NaN is NaN: the perturbation of the text would carry it into the training loss."""

    def loss(pixels, text_delta=None, levels=None):
        still = text_delta[2:3].pow(2).sum().sqrt()  # an infinite slope at 0, times 0
        return pixels.sum() + 0 * still + text_delta.sum()

    with pytest.raises(NanError, match=r"NaN for 1 of 6 texts, first for text 2"):
        UniversalHierarchicalAttack().perturb(loss, images, text_shape=(6, 4))


def test_kind07_infinite_logits_of_a_masked_class_are_named(net, images, labels, seeded):
    """Nothing overflows: an attack that aims at a class of logit -inf finds no gradient."""

    def masked(pixels):
        return net(pixels).index_fill(1, torch.tensor([2], device=pixels.device), -torch.inf)

    (attack,) = build_attacks("apgd-t", eps=8 / 255)
    kept = labels != 2
    with pytest.raises(NanError, match=r"NaN since logits are infinite, first that of class 2 for image 0"):
        attack(masked, images[kept], labels[kept], generator=seeded())
    PGD(num_steps=2, loss="ce")(masked, images[kept], labels[kept], generator=seeded())
