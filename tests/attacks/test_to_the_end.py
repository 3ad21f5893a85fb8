"""Images made for other judges: of several targets, restarts and steps, the one that goes deepest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from tiny_text import tiny_encoder

from hf_hierrobust.attacks import (
    APGD,
    FAB,
    PGD,
    Attack,
    GradientAttack,
    JointAttack,
    LastIterates,
    MultimodalAttack,
    Square,
    TargetedAPGD,
    TargetedFAB,
    margin,
)
from hf_hierrobust.classifiers.shared import Parts

CLASSES, COUNT, EPS = 10, 60, 0.02
ALL = torch.ones(COUNT, dtype=torch.bool)


@dataclass(kw_only=True)
class Sides(Attack):
    """Goes up, then down, by half of the budget; each run on what the earlier one left, as in other code."""

    name: ClassVar[str] = "sides"

    def run(self, victim, pixels, labels, generator):
        found, standing = pixels.clone(), torch.arange(len(pixels))
        for side in (1, -1):
            found[standing] = pixels[standing] + side * self.eps / 2
            with torch.no_grad():
                told = victim.fooled(found[standing], labels[standing], victim.logits(found[standing]))
            standing = standing[~told]
        return found


@pytest.fixture(scope="module")
def linear():
    """A linear classifier, images well inside [0, 1], and the labels it gives them."""
    generator = torch.Generator().manual_seed(0)
    weight = 0.3 * torch.randn(CLASSES, 3 * 4 * 4, generator=generator)
    pixels = torch.rand(COUNT, 3, 4, 4, generator=generator) * 0.6 + 0.2

    def net(x):
        return (x.flatten(1) - 0.5) @ weight.T

    return net, weight, pixels, net(pixels).argmax(1)


@pytest.fixture(scope="module")
def wavy():
    """A classifier on which where a run starts decides where it ends."""
    generator = torch.Generator().manual_seed(1)
    first = torch.randn(3 * 4 * 4, 32, generator=generator)
    second = torch.randn(32, 6, generator=generator)
    pixels = torch.rand(COUNT, 3, 4, 4, generator=generator) * 0.6 + 0.2

    def net(x):
        return torch.sin(6 * ((x.flatten(1) - 0.5) @ first)) @ second

    return net, pixels, net(pixels).argmax(1)


def to_the_end(attack, net, pixels, labels, generator=None, **options):
    generator = torch.Generator().manual_seed(3) if generator is None else generator
    result = LastIterates(attack=attack)(
        net, pixels, labels, generator=generator, clean_correct=torch.ones_like(labels, dtype=bool), **options
    )
    assert (attack.threat.size(result.adversarial - pixels) <= attack.threat.eps * (1 + 1e-4) + 1e-6).all()
    assert torch.equal(result.robust_correct, net(result.adversarial).argmax(1) == labels)
    return result


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("make", [TargetedAPGD, TargetedFAB, FAB])
def test_whoever_aims_at_every_class_leaves_what_the_ball_leaves(linear, make, norm):
    net, weight, pixels, labels = linear
    eps, order = (EPS, 1) if norm == "linf" else (0.12, 2)
    logits, rows = net(pixels), torch.arange(COUNT)
    reach = (weight[None] - weight[labels][:, None]).norm(order, dim=2)  # of z_c - z_y: Hölder
    best = (logits - logits[rows, labels][:, None] + eps * reach).scatter(1, labels[:, None], -torch.inf)
    expected = best.amax(1)
    result = to_the_end(make(eps=eps, norm=norm, num_steps=15), net, pixels, labels)
    assert torch.equal(result.robust_correct, expected < 0)
    assert 0.05 < float((expected < 0).float().mean()) < 0.5
    depth = margin(net(result.adversarial), labels)
    assert (depth <= expected + 1e-5).all()
    if make is TargetedAPGD:  # which climbs on once it is over a boundary
        assert (expected - depth).max() < 0.1


@pytest.mark.parametrize(
    "attack",
    [
        PGD(eps=0.004, num_steps=3, loss="margin"),
        PGD(eps=0.004, num_steps=3, early_stop=False),
        APGD(eps=0.002, num_steps=6),
        APGD(eps=0.01, norm="l2", num_steps=3, loss="margin"),
        TargetedAPGD(eps=0.002, num_steps=2, num_targets=3),
        Square(eps=0.004, num_queries=15),
        Square(eps=0.05, norm="l2", num_queries=15),
    ],
    ids=lambda attack: f"{attack.name}-{attack.norm}",
)
def test_an_image_falls_with_any_of_the_restarts(wavy, attack):
    net, pixels, labels = wavy
    if attack.name == "apgd-t":  # whose runs go by targets first
        first = replace(attack, restarts=1).targets
        runs = [only(attack, list(first(_Plain(net), pixels, labels))[place]) for place in (0, 1, 2)]
    else:
        runs, attack = [attack] * 3, replace(attack, restarts=3)
    generator = torch.Generator().manual_seed(3)
    alone = [to_the_end(run, net, pixels, labels, generator) for run in runs]
    together = to_the_end(attack, net, pixels, labels)
    standing = torch.stack([result.robust_correct for result in alone])
    assert torch.equal(together.robust_correct, standing.all(0))
    depths = torch.stack([margin(net(result.adversarial), labels) for result in alone])
    assert (depths[-1] < depths.amax(0) - 1e-3).any(), "the last run is not the best one for every image"
    assert torch.allclose(margin(net(together.adversarial), labels), depths.amax(0), atol=1e-5)


class _Plain:
    def __init__(self, net):
        self.logits = net


def only(attack, target):
    """The attack on one of its targets."""
    run = replace(attack)
    run.targets = lambda victim, pixels, labels: iter([target])
    return run


@pytest.mark.parametrize(
    "attack",
    [
        PGD(eps=0.003, num_steps=4),
        APGD(eps=0.002, num_steps=8),
        TargetedAPGD(eps=0.001, num_steps=4, num_targets=4),
        FAB(eps=0.002, num_steps=6),
        TargetedFAB(eps=0.002, num_steps=6, num_targets=4),
        Sides(eps=0.02),
    ],
    ids=lambda attack: attack.name,
)
def test_going_on_loses_no_image_that_the_attack_breaks(wavy, attack):
    net, pixels, labels = wavy
    once = attack(net, pixels, labels, generator=torch.Generator().manual_seed(3))
    result = to_the_end(attack, net, pixels, labels)
    assert not (result.robust_correct & ~once.robust_correct).any()
    assert 0 < int(result.robust_correct.sum()) < COUNT
    broken = ~once.robust_correct
    ends, first = (margin(net(one.adversarial), labels)[broken] for one in (result, once))
    assert (ends >= first - 1e-6).all()
    if not isinstance(attack, FAB):  # which looks for the nearest boundary, and goes no deeper by itself
        assert ends.mean() > first.mean()


def test_the_classifier_and_not_its_search_says_which_iterate_is_deepest(wavy):
    net, pixels, labels = wavy

    def search(x):  # right about the direction, wrong about the place
        return net(x) + 3 * F.one_hot(labels, 6) * torch.rand(len(x), 1, generator=draws)

    for seed in range(3):
        draws = torch.Generator().manual_seed(seed)
        attack = PGD(eps=0.004, num_steps=3)
        result = to_the_end(attack, net, pixels, labels, search=search)
        draws = torch.Generator().manual_seed(seed)
        last = attack.run(_Silent(net, search), pixels, labels, torch.Generator().manual_seed(3))
        assert (margin(net(result.adversarial), labels) >= margin(net(last), labels) - 1e-6).all()


class _Silent(_Plain):
    """Gradients of the search, no verdicts."""

    def __init__(self, net, search):
        self.logits = search

    def fooled(self, x, labels, logits=None):
        return torch.zeros(len(x), dtype=torch.bool)

    def gradient(self, loss, x):
        return torch.autograd.grad(loss.sum(), x)[0]


class _Cosines:
    """Embeddings of pixels compared with texts."""

    def __init__(self, text):
        self.text, self.weight = text, torch.randn(48, 16, generator=torch.Generator().manual_seed(5))

    def stem(self, pixels):
        return torch.sin(4 * (pixels.flatten(1) - 0.5) @ self.weight)

    def head(self, features):
        return 20 * F.normalize(features, dim=1) @ F.normalize(self.text, dim=1).T

    def parts(self):
        return Parts(("cosines", id(self)), self.stem, self.head)

    def __call__(self, pixels):
        return self.head(self.stem(pixels))


def test_of_the_joint_orders_restarts_the_one_that_breaks_the_pair_counts(wavy):
    _, pixels, _ = wavy
    text = torch.randn(6, 16, generator=torch.Generator().manual_seed(6))
    net = _Cosines(text)
    labels = net(pixels).argmax(1)
    generator = torch.Generator().manual_seed(3)
    one = JointAttack(attack=PGD(eps=0.02, num_steps=2), text=text.flip(0))
    alone = [one(net, pixels, labels, generator=generator, clean_correct=ALL) for _ in range(4)]
    attack = replace(one, attack=replace(one.attack, restarts=4))
    together = attack(
        net, pixels, labels, generator=torch.Generator().manual_seed(3), clean_correct=ALL
    ).robust_correct
    standing = torch.stack([result.robust_correct for result in alone])
    assert torch.equal(together, standing.all(0)) and standing[-1].sum() > together.sum()


@pytest.mark.parametrize("order", ["independent", "joint"])
def test_of_the_multimodal_attacks_restarts_too(order):
    encoder = tiny_encoder()
    prompts = [f"a photo of a {name}" for name in ("cat", "dog", "oak", "rose")]
    pixels = torch.rand(COUNT, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    width = encoder(prompts).shape[1]
    matrix = torch.randn(192, width, generator=torch.Generator().manual_seed(2))

    def encode_image(x):
        return torch.sin((x.flatten(1) - 0.5) @ matrix)

    text = F.normalize(encoder(prompts).detach(), dim=1)
    labels = (F.normalize(encode_image(pixels), dim=1) @ text.T).argmax(1)
    attack = MultimodalAttack(
        image_attack=PGD(eps=0.01, num_steps=1), text_attack=GradientAttack(), order=order
    )
    options = {"attacked_prompts": GradientAttack()(prompts, encoder).texts}
    given = (encode_image, encoder, prompts, pixels, labels)
    several = replace(attack, image_attack=replace(attack.image_attack, restarts=4))
    found = several(*given, generator=torch.Generator().manual_seed(3), **options)
    if order == "joint":
        generator = torch.Generator().manual_seed(3)
        alone = [attack(*given, generator=generator, **options).pair_correct for _ in range(4)]
        assert torch.equal(found.pair_correct, torch.stack(alone).all(0))
    assert found.pair_correct.sum() <= attack(*given, **options).pair_correct.sum()
