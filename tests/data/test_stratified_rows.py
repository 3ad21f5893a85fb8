"""Which images stand for a whole set."""

from __future__ import annotations

import numpy as np
import pytest

from hf_hierrobust.data import stratified_rows


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize(
    ("counts", "n"), [([100, 100, 100], 50), ([150] * 10, 1000), ([1000, 3, 1], 20), ([5, 5, 90], 10)]
)
def test_kind28_rows_are_stratified_by_class(counts, n, shuffled):
    """Sorted folders were evaluated on their first classes only."""
    labels = np.repeat(np.arange(len(counts)), counts)
    if shuffled:
        labels = np.random.default_rng(1).permutation(labels)
    rows, how = stratified_rows(labels, n)
    found = np.bincount(labels[rows], minlength=len(counts))
    assert len(set(rows)) == n == len(rows) and rows == sorted(rows)
    assert how == "stratified by class, seed 0" and found.min() >= 1
    share = np.array(counts) * n / sum(counts)
    assert np.abs(found - share).max() < (1 if share.min() >= 1 else len(counts))


def test_kind28_fewer_images_than_classes_take_different_classes():
    labels = np.repeat(np.arange(50), np.arange(1, 51))
    rows, _ = stratified_rows(labels, 20)
    assert len(rows) == 20 == len(set(labels[rows]))


def test_kind28_the_choice_is_seeded():
    labels = np.repeat([0, 1, 2], 100)
    assert stratified_rows(labels, 30) == stratified_rows(labels, 30)
    assert stratified_rows(labels, 30)[0] != stratified_rows(labels, 30, seed=1)[0]
    assert stratified_rows(labels, 300) == (list(range(300)), "all rows")
    assert stratified_rows(labels, 999) == (list(range(300)), "all rows")
    rows, how = stratified_rows(np.full(300, -1), 30)
    assert how == "random rows, seed 0" and len(rows) == 30
    with pytest.raises(ValueError, match="at least 1, got 0"):
        stratified_rows(labels, 0)
