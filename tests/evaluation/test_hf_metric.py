"""The evaluate adapter equals the plain functions and works offline, in batches and combined."""

from __future__ import annotations

import evaluate
import pytest

from hf_hierrobust.evaluation.hf_metric import hierarchical_accuracy


def test_levels_and_severity(tiny_tree, tmp_path):
    metric = hierarchical_accuracy(tiny_tree, cache_dir=str(tmp_path))
    # cat→cat right; dog→cat wrong leaf, right superclass; oak→cat wrong at both; rose→rose right
    result = metric.compute(predictions=[0, 0, 0, 3], references=[0, 1, 2, 3])
    assert result["accuracy"] == pytest.approx(0.5)
    assert result["accuracy_level_1"] == pytest.approx(0.75)
    assert result["mistake_severity"] == pytest.approx(1.5)


def test_batches_and_combination(tiny_tree, tmp_path):
    metric = hierarchical_accuracy(tiny_tree, cache_dir=str(tmp_path))
    metric.add_batch(predictions=[0, 1], references=[0, 0])
    metric.add_batch(predictions=[2], references=[2])
    assert metric.compute()["accuracy"] == pytest.approx(2 / 3)
    both = evaluate.combine([hierarchical_accuracy(tiny_tree), hierarchical_accuracy(tiny_tree)])
    values = both.compute(predictions=[0, 2], references=[0, 3])
    assert sum(v == pytest.approx(0.5) for k, v in values.items() if k.endswith("accuracy")) == 2
