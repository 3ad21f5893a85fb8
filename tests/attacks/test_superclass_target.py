"""Attacks aimed within the superclass or outside of it: exact on a linear model, by linear programs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from hf_hierrobust.attacks import PGD, SuperclassTarget

EPS = 0.06
SUPERCLASS = torch.tensor([0, 0, 0, 1, 1, 2])


@pytest.fixture(scope="module")
def linear():
    """Weights (6, 12), pixels (40, 3, 2, 2) and labels, all right when clean."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 12, generator=generator, dtype=torch.float64)
    pixels = torch.rand(40, 3, 2, 2, generator=generator, dtype=torch.float64)
    return weight, pixels, (pixels.flatten(1) @ weight.T).argmax(1)


def reach(weight, x, goals) -> float:
    """The largest lead that a class of ``goals`` can get over all others within the budget, exactly."""
    best = -np.inf
    for goal in goals:
        others = [c for c in range(len(weight)) if c not in goals]
        # maximise t subject to z_goal - z_c >= t for every class that is no goal
        rows = np.array([np.append(weight[c] - weight[goal], 1.0) for c in others])
        bounds = [(max(0, v - EPS), min(1, v + EPS)) for v in x] + [(None, None)]
        found = linprog(np.append(np.zeros(len(x)), -1.0), rows, np.zeros(len(rows)), bounds=bounds)
        best = max(best, -found.fun)
    return best


@pytest.mark.parametrize("target", ["within", "outside"])
def test_the_target_is_reached_where_a_linear_program_reaches_it(linear, target):
    weight, pixels, labels = linear

    def classifier(x):
        return x.flatten(1) @ weight.T

    attack = PGD(eps=EPS, num_steps=150, step_size=EPS / 30, loss="margin")
    aimed = SuperclassTarget(attack=attack, to_superclass=SUPERCLASS, target=target)
    result = aimed(classifier, pixels, labels, generator=torch.Generator().manual_seed(0))
    predicted = classifier(result.adversarial).argmax(1)
    for row, label in enumerate(labels.tolist()):
        same = SUPERCLASS[label] == SUPERCLASS
        goals = [c for c in range(6) if (same[c] and c != label if target == "within" else not same[c])]
        lead = reach(weight.numpy(), pixels[row].flatten().numpy(), goals) if goals else -np.inf
        assert result.robust_correct[row] == (predicted[row].item() not in goals)
        if abs(lead) > 0.02:  # closer ones ask for more steps
            assert bool(result.robust_correct[row]) == (lead < 0), (row, lead)
    assert 0 < int(result.robust_correct.sum()) < 40 and result.clean_correct.all()
    assert result.cost.backwards > 0 and result.zero_gradient == 0


def test_another_mistake_is_no_success():
    """A class outside leads before any sibling does: within its superclass the image stands."""

    def classifier(x):
        dark = 1 - x.flatten(1).mean(1)
        return torch.stack([1 - dark, 0 * dark, dark - 0.02], 1)  # own, sibling, stranger

    pixels, labels = torch.full((3, 3, 2, 2), 0.52), torch.zeros(3, dtype=torch.long)
    superclass = torch.tensor([0, 0, 1])
    attack = PGD(eps=0.1, num_steps=5)
    robust = {
        target: SuperclassTarget(attack=attack, to_superclass=superclass, target=target)(
            classifier, pixels, labels
        ).robust_correct.tolist()
        for target in ("within", "outside")
    }
    assert robust == {"within": [True] * 3, "outside": [False] * 3}


def test_without_a_target_class_every_image_stands_at_no_cost():
    net = lambda x: x.mean((2, 3)) @ torch.eye(3)  # noqa: E731
    pixels = torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    labels = net(pixels).argmax(1)
    for target, superclass in itertools.product(("within", "outside"), ([0, 1, 2], [0, 0, 0])):
        aimed = SuperclassTarget(
            attack=PGD(eps=0.99), to_superclass=torch.tensor(superclass), target=target, level=2
        )
        result = aimed(net, pixels, labels)
        if (target == "within") == (superclass == [0, 1, 2]):
            assert result.robust_correct.all() and result.cost == (0, 0)
            assert torch.equal(result.adversarial, pixels)
        else:
            assert not result.robust_correct.any()
    assert aimed.describe() == PGD(eps=0.99).describe() | {"target": "outside superclass", "target_level": 2}


def test_wrong_images_are_left_alone_and_unknown_targets_refused():
    net = lambda x: x.mean((2, 3))  # noqa: E731
    pixels = torch.rand(6, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    labels = (net(pixels).argmax(1) + torch.tensor([0, 1, 0, 1, 0, 1])) % 3
    aimed = SuperclassTarget(attack=PGD(eps=0.9), to_superclass=torch.tensor([0, 0, 1]), target="outside")
    result = aimed(net, pixels, labels)
    assert result.clean_correct.tolist() == [True, False] * 3 and not result.robust_correct.any()
    assert torch.equal(result.adversarial[1::2], pixels[1::2])
    with pytest.raises(ValueError, match="target='near'"):
        SuperclassTarget(attack=PGD(), to_superclass=SUPERCLASS, target="near")
