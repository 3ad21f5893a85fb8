"""Universal, leaf and per-level perturbations, and attacks on superclasses."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hf_hierrobust.attacks import (
    PGD,
    TRAINING_ATTACKS,
    LeafAttack,
    PerLevelAttack,
    SuperclassAttack,
    TrainingPGD,
    UniversalHierarchicalAttack,
)
from hf_hierrobust.classifiers import SuperclassView, roll_up
from hf_hierrobust.geometry import polar
from hf_hierrobust.hierarchy import LabelTree

EPS, TEXT_EPS, DIM = 4 / 255, 1e-3, 16
TREE = LabelTree.from_paths(
    {"cat": ["animal"], "oak": ["plant"], "dog": ["animal"], "rose": ["plant"]}, name="toy"
)


class ToyHita:
    """Distances in the Poincaré ball to the nodes of each level, as HITA sums them."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.encoder = nn.Linear(3 * 8 * 8, DIM).requires_grad_(False)
        self.encoder.weight.normal_(std=0.05, generator=generator)
        self.encoder.bias.zero_()
        self.texts = torch.randn(6, DIM, generator=generator) * 0.2
        self.rows = (range(4), range(4, 6))
        self.labels = torch.arange(48) % 4
        self.seen: list = []

    def __call__(self, pixels, text_delta=None, levels=None):
        self.seen.append(levels)
        images = polar.from_tangent(self.encoder(pixels.flatten(1)), 1.0)
        texts = polar.from_tangent(self.texts if text_delta is None else self.texts + text_delta, 1.0)
        distance = polar.pairwise_distance(images, texts, 1.0)
        total = torch.zeros(())
        for level, weight in enumerate((1.0, 0.5)):
            if levels is None or level in levels:
                scores = -20 * distance[:, list(self.rows[level])]
                total = total + weight * F.cross_entropy(scores, TREE.ancestors(level)[self.labels])
        return total


@pytest.fixture
def hita() -> ToyHita:
    return ToyHita()


def universal(cls=UniversalHierarchicalAttack, **options):
    return cls(**{"eps": EPS, "text_eps": TEXT_EPS, **options})


def test_universal_attack_is_one_joint_ascent(hita, images, seeded):
    """OC-10, line after line: both perturbations step on gradients of the same pass."""
    delta = (1e-3 * torch.empty_like(images).normal_(generator=seeded(1))).clamp(-EPS, EPS)
    delta = torch.max(torch.min(delta, 1 - images), -images)
    text = torch.zeros(6, DIM)
    for _ in range(3):
        delta.requires_grad_(), text.requires_grad_()
        by_pixel, by_text = torch.autograd.grad(hita(images + delta, text), [delta, text])
        delta = (delta.detach() + EPS * by_pixel.sign()).clamp(-EPS, EPS)
        delta = torch.max(torch.min(delta, 1 - images), -images)
        text = (text.detach() + TEXT_EPS * by_text.sign()).clamp(-TEXT_EPS, TEXT_EPS)

    attack = universal(step_size=EPS)
    assert attack.num_steps == 3 and attack.random_start == "gaussian"
    (found,) = attack.perturb(hita, images, text_shape=(6, DIM), levels=2, generator=seeded(1))
    assert torch.equal(found.pixels, images + delta)
    assert torch.equal(found.text_delta, text)
    assert found.levels is None and set(hita.seen) == {None}
    assert not found.pixels.requires_grad and not found.text_delta.requires_grad


def test_both_perturbations_raise_the_loss(hita, images, seeded):
    attack = universal(step_size=EPS, text_eps=0.02)
    (found,) = attack.perturb(hita, images, text_shape=(6, DIM), generator=seeded())
    clean, both = hita(images), hita(found.pixels, found.text_delta)
    assert both > hita(found.pixels) > clean + 0.1
    assert both > hita(images, found.text_delta) > clean + 0.1
    assert (found.pixels - images).abs().max() <= EPS * (1 + 1e-5)
    assert found.pixels.min() >= 0 and found.pixels.max() <= 1
    assert found.text_delta.abs().max() == torch.tensor(0.02)


@pytest.mark.parametrize("steps", [1, 4])
def test_text_step_size_and_ball(hita, images, steps):
    attack = universal(text_step_size=0.4 * TEXT_EPS, num_steps=steps)
    (found,) = attack.perturb(hita, images, text_shape=(6, DIM))
    largest = found.text_delta.abs().max()
    assert torch.isclose(largest, torch.tensor(min(0.4 * steps, 1) * TEXT_EPS))


def test_shared_text_is_one_row(hita, images):
    (found,) = universal(shared_text=True).perturb(hita, images, text_shape=(6, DIM))
    assert found.text_delta.shape == (1, DIM) and found.text_delta.abs().max() == torch.tensor(TEXT_EPS)
    assert hita(images, found.text_delta) > hita(images)


def test_without_text_attack_the_pixels_are_those_of_pgd(hita, images, seeded):
    options = {"eps": EPS, "num_steps": 3, "random_start": "gaussian", "step_size": EPS}
    (expected,) = TrainingPGD(**options).perturb(hita, images, generator=seeded())
    (by_eps,) = universal(text_eps=0.0).perturb(hita, images, text_shape=(6, DIM), generator=seeded())
    (by_shape,) = universal().perturb(hita, images, generator=seeded())
    for found in (by_eps, by_shape):
        assert found.text_delta is None
        assert torch.equal(found.pixels, expected.pixels)


def test_leaf_and_per_level_attack_their_own_levels(hita, images, seeded):
    (leaf,) = universal(LeafAttack).perturb(hita, images, text_shape=(6, DIM), levels=2, generator=seeded())
    assert leaf.levels is None and set(hita.seen) == {(0,)}, "trained on all levels, attacked on one"
    assert not leaf.text_delta[4:].any() and leaf.text_delta[:4].any()
    hita.seen.clear()
    found = universal(PerLevelAttack).perturb(hita, images, text_shape=(6, DIM), levels=2, generator=seeded())
    assert [p.levels for p in found] == [(0,), (1,)]
    assert hita.seen == [(0,)] * 3 + [(1,)] * 3, "one attack a level, at that many times the cost"
    (everything,) = universal().perturb(hita, images, text_shape=(6, DIM), levels=2, generator=seeded())
    for level, perturbation in enumerate(found):
        own = hita(perturbation.pixels, perturbation.text_delta, (level,))
        assert own > hita(found[1 - level].pixels, found[1 - level].text_delta, (level,))
        assert own > hita(everything.pixels, everything.text_delta, (level,))


def test_bad_text_options_are_refused():
    with pytest.raises(ValueError, match=r"text_eps=-0.1 must be a number, at least 0"):
        universal(text_eps=-0.1)
    with pytest.raises(ValueError, match="text_step_size=0 must be a positive number"):
        universal(text_step_size=0)
    with pytest.raises(ValueError, match=r"num_steps=0"):
        universal(num_steps=0)


def test_rivals_are_registered_and_describe_the_text_attack():
    for name in ("universal", "leaf", "per_level"):
        facts = universal(TRAINING_ATTACKS.get(name)).describe()
        assert facts["name"] == name and facts["text_eps"] == TEXT_EPS and facts["num_steps"] == 3


class TestSuperclassAttack:
    attack = PGD(eps=EPS, num_steps=4)

    def test_equals_the_attack_on_rolled_up_logits(self, net, images, labels, seeded):
        parents = TREE.ancestors(1)

        def rolled(pixels):
            z = net(pixels)
            return torch.stack([z[:, parents == v].logsumexp(1) for v in range(2)], 1)

        expected = self.attack(rolled, images, parents[labels], generator=seeded())
        found = SuperclassAttack(attack=self.attack, tree=TREE, level=1)(
            net, images, labels, generator=seeded()
        )
        assert torch.equal(found.robust_correct, expected.robust_correct)
        assert torch.equal(found.clean_correct, expected.clean_correct)
        assert torch.allclose(found.adversarial, expected.adversarial, atol=1e-6)
        leaf = self.attack(net, images, labels, generator=seeded())
        assert (found.clean_correct != leaf.clean_correct).any()
        assert 0 < found.robust_correct.sum() < found.clean_correct.sum()

    def test_level_zero_is_the_leaf_attack(self, net, images, labels, seeded):
        leaf = self.attack(net, images, labels, generator=seeded())
        found = SuperclassAttack(attack=self.attack, tree=TREE, level=0)(
            net, images, labels, generator=seeded()
        )
        assert torch.equal(found.robust_correct, leaf.robust_correct)

    def test_own_prompts_are_not_rolled_up(self, net, images, labels, seeded):
        def nodes(pixels):
            return net(pixels)[:, :2]

        expected = self.attack(nodes, images, TREE.ancestors(1)[labels], generator=seeded())
        attack = SuperclassAttack(attack=self.attack, tree=TREE, level=1, rolled_up=False)
        found = attack(nodes, images, labels, generator=seeded())
        assert torch.equal(found.adversarial, expected.adversarial)

    def test_search_is_rolled_up_too(self, net, images, labels, seeded):
        attack = SuperclassAttack(attack=self.attack, tree=TREE, level=1)
        expected = attack(net, images, labels, generator=seeded())
        found = attack(net, images, labels, generator=seeded(), search=lambda x: net(x))
        assert torch.equal(found.robust_correct, expected.robust_correct)
        assert torch.equal(found.adversarial, expected.adversarial)

    def test_the_module_behind_the_view_is_frozen(self, net, images, labels, seeded):
        class Classifier:  # as ZeroShotClassifier: a plain callable around a module
            module = net
            training, trainable = set(), set()

            def __call__(self, pixels):
                self.training |= {m.training for m in net.modules()}
                self.trainable |= {p.requires_grad for p in net.parameters()}
                return net(pixels)

        net.train()
        SuperclassAttack(attack=self.attack, tree=TREE, level=1)(
            Classifier(), images, labels, generator=seeded()
        )
        assert Classifier.training == Classifier.trainable == {False}
        assert all(m.training for m in net.modules()) and all(p.requires_grad for p in net.parameters())

    def test_view_rolls_up(self, net, images):
        view = SuperclassView(net, TREE, 1)
        assert torch.equal(view(images), roll_up(net(images), TREE.ancestors(1), 2))

    @pytest.mark.parametrize("level", [-1, 2])
    def test_level_outside_the_tree(self, level):
        with pytest.raises(ValueError, match=rf"level={level} is not in tree 'toy' of 2 levels"):
            SuperclassAttack(attack=self.attack, tree=TREE, level=level)

    @pytest.mark.parametrize("wrong", [-1, 4])
    def test_label_outside_the_leaves(self, net, images, labels, wrong):
        labels[0] = wrong
        with pytest.raises(ValueError, match=r"leaf_labels span \[.*\] but tree 'toy' has 4 leaves"):
            SuperclassAttack(attack=self.attack, tree=TREE, level=1)(net, images, labels)
