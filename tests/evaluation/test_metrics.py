"""Metrics against scipy, published worked examples, brute force and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from hf_hierrobust.evaluation.metrics import (
    accuracy,
    hierarchical_distance,
    level_accuracies,
    paired_difference,
    wilson_interval,
)
from hf_hierrobust.hierarchy import LabelTree

TREE = LabelTree.from_paths(
    {
        "cat": ["mammal", "animal"],
        "dog": ["mammal", "animal"],
        "hen": ["bird", "animal"],
        "car": ["vehicle", "thing"],
        "bus": ["vehicle", "thing"],
        "cup": ["dish", "thing"],
    },
    name="toy",
)
CAT, DOG, HEN, CAR, BUS, CUP = range(6)


def flags_of_table(both: int, only_a: int, only_b: int, neither: int) -> tuple[list[bool], list[bool]]:
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return a, b


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
@pytest.mark.parametrize(
    ("successes", "n"), [(0, 1), (1, 1), (0, 50), (50, 50), (3, 7), (411, 1000), (9999, 10000)]
)
def test_wilson_agrees_with_scipy(successes, n, confidence):
    reference = binomtest(successes, n).proportion_ci(confidence_level=confidence, method="wilson")
    assert wilson_interval(successes, n, confidence) == pytest.approx(tuple(reference), abs=1e-12)


def test_wilson_never_excludes_the_estimate():
    for n in range(1, 40):
        for successes in range(n + 1):
            low, high = wilson_interval(successes, n)
            assert 0 <= low <= successes / n <= high <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 0), "n=0"),
        ((5, 4), "successes=5"),
        ((-1, 4), "successes=-1"),
        ((0.4, 100), "successes=0.4"),
        ((1, 4, 95), "confidence=95"),
    ],
)
def test_wilson_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        wilson_interval(*arguments)


@pytest.mark.parametrize("make", [list, torch.tensor, np.array])
def test_accuracy_of_any_container(make):
    assert accuracy(make([True, False, True])) == 2 / 3


def test_accuracy_rejects_predictions_instead_of_flags():
    with pytest.raises(ValueError, match=r"flags must hold only 0/1"):
        accuracy(torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match=r"non-empty vector"):
        accuracy([])


def test_level_accuracies_count_ancestors():
    labels = torch.tensor([CAT, CAT, CAT, CAT])
    predictions = torch.tensor([CAT, DOG, HEN, CAR])
    assert level_accuracies(predictions, labels, TREE) == [1 / 4, 2 / 4, 3 / 4]


def test_level_accuracies_rise_with_the_level():
    generator = torch.Generator().manual_seed(0)
    predictions, labels = torch.randint(0, 6, (2, 500), generator=generator)
    values = level_accuracies(predictions, labels, TREE)
    assert len(values) == TREE.num_levels
    assert values == sorted(values) and values[0] < values[-1]


def test_hierarchical_distance_is_the_height_of_the_common_ancestor():
    labels = torch.tensor([CAT, CAT, CAT, CAT])
    predictions = torch.tensor([CAT, DOG, HEN, CAR])  # heights 0, 1, 2, and 3 at the implicit root
    assert hierarchical_distance(predictions, labels, TREE) == (1 + 2 + 3) / 3
    assert hierarchical_distance(predictions, labels, TREE, mistakes_only=False) == (0 + 1 + 2 + 3) / 4
    assert math.isnan(hierarchical_distance(labels, labels, TREE))
    assert hierarchical_distance(labels, labels, TREE, mistakes_only=False) == 0


def test_hierarchical_distance_agrees_with_a_walk_up_the_tree():
    generator = torch.Generator().manual_seed(1)
    predictions, labels = torch.randint(0, 6, (2, 200), generator=generator)
    heights = []
    for prediction, label in zip(predictions.tolist(), labels.tolist()):
        mine, own = TREE.levels_of(TREE.leaves[prediction]), TREE.levels_of(TREE.leaves[label])
        heights.append(next((height for height in range(3) if mine[height] == own[height]), 3))
    wrong = [height for height in heights if height]
    assert hierarchical_distance(predictions, labels, TREE) == pytest.approx(np.mean(wrong))


@pytest.mark.parametrize(
    "bad", [torch.tensor([6]), torch.tensor([-1]), torch.tensor([0.0]), torch.tensor([[0]])]
)
def test_leaf_indices_are_checked(bad):
    good = torch.zeros_like(bad, dtype=torch.long).reshape(-1)
    with pytest.raises(ValueError, match="leaf_predictions"):
        level_accuracies(bad, good, TREE)
    with pytest.raises(ValueError, match="labels"):
        hierarchical_distance(good, bad, TREE)


@pytest.mark.parametrize(
    ("table", "interval"),
    # Method 10 on tables of Newcombe (1998) and, with three digits, of Altman et al. (2000), table 6.2.
    [
        ((36, 12, 2, 0), (0.0569, 0.3404)),
        ((20, 12, 2, 16), (0.0562, 0.3292)),
        ((14, 5, 0, 22), (0.011, 0.226)),
    ],
)
def test_paired_difference_reproduces_published_intervals(table, interval):
    _, only_a, only_b, _ = table
    result = paired_difference(*flags_of_table(*table))
    assert result.difference == pytest.approx((only_a - only_b) / sum(table))
    assert (result.low, result.high) == pytest.approx(interval, abs=6e-4 if interval[0] == 0.011 else 5e-5)
    assert result.p_value == pytest.approx(binomtest(only_b, only_a + only_b).pvalue)


def test_paired_difference_agrees_with_a_paired_bootstrap():
    n, cells = 1000, np.array([420, 130, 70, 380])
    result = paired_difference(*flags_of_table(*cells))
    resampled = np.random.default_rng(0).multinomial(n, cells / n, size=20_000)
    bootstrap = np.quantile((resampled[:, 1] - resampled[:, 2]) / n, [0.025, 0.975])
    assert (result.low, result.high) == pytest.approx(tuple(bootstrap), abs=3e-3)


def test_paired_difference_covers_the_truth():
    probabilities, n = [0.3, 0.25, 0.1, 0.35], 60
    tables = np.random.default_rng(0).multinomial(n, probabilities, size=600)
    results = [paired_difference(*flags_of_table(*table)) for table in tables]
    covered = np.mean([result.low <= 0.15 <= result.high for result in results])
    assert 0.925 <= covered <= 0.985  # nominal 0.95; 600 trials have a standard error of 0.009


def test_paired_difference_is_antisymmetric_and_tighter_than_unpaired():
    a, b = flags_of_table(400, 60, 30, 110)
    forward, backward = paired_difference(a, b), paired_difference(b, a)
    assert (backward.low, backward.high) == pytest.approx((-forward.high, -forward.low))
    assert backward.difference == -forward.difference and backward.p_value == pytest.approx(forward.p_value)
    shuffled = np.random.default_rng(0).permutation(b)
    unpaired = paired_difference(a, shuffled)
    assert forward.high - forward.low < 0.7 * (unpaired.high - unpaired.low)


def test_paired_difference_of_equal_flags_keeps_a_width():
    result = paired_difference([True] * 30, [True] * 30)
    assert result.difference == 0 and result.p_value == 1
    assert result.low < -0.05 and result.high > 0.05
