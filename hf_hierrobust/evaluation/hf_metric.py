"""`evaluate.Metric` view of the per-level accuracies, for pipelines built on the evaluate library."""

from __future__ import annotations

import torch

from ..hierarchy import LabelTree
from .metrics import hierarchical_distance, level_accuracies


def hierarchical_accuracy(tree: LabelTree, **kwargs):
    """A metric that works offline: accuracy at each level of a tree, from leaf predictions.

    ``compute(predictions=…, references=…)`` takes leaf indices in the tree's order and returns
    ``accuracy`` (leaves), ``accuracy_level_1`` … and ``mistake_severity``, the mean height of the lowest
    common ancestor of a wrong prediction and the truth.

    Args:
        tree: aligned with the classes that the indices count.
        kwargs: passed on to `evaluate.Metric`.

    Raises:
        ImportError: the evaluate library (extra ``evaluate``) is missing.
    """
    try:
        import datasets
        import evaluate
    except ImportError as error:
        raise ImportError(
            "hierarchical_accuracy needs evaluate: pip install 'hf_hierrobust[evaluate]'"
        ) from error

    class HierarchicalAccuracy(evaluate.Metric):
        def _info(self):
            return evaluate.MetricInfo(
                description="Accuracy at every level of a class tree.",
                citation="",
                inputs_description="predictions, references: leaf indices.",
                features=datasets.Features(
                    {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
                ),
            )

        def _compute(self, predictions, references, **_):
            predicted, true = torch.as_tensor(predictions), torch.as_tensor(references)
            levels = level_accuracies(predicted, true, tree)
            named = {
                "accuracy" if level == 0 else f"accuracy_level_{level}": v for level, v in enumerate(levels)
            }
            return named | {"mistake_severity": hierarchical_distance(predicted, true, tree)}

    return HierarchicalAccuracy(keep_in_memory=True, **kwargs)
