"""How far wrong predictions are from the truth in a class tree."""

from __future__ import annotations

import datasets
import evaluate

_DESCRIPTION = """
Mean height of the lowest common ancestor of a wrong prediction and the truth: 1 if they share the level above
the leaves, 2 if the one above that, and so on; the root lies above all levels. Lower is better. A model that
makes fewer mistakes may make graver ones: read it beside the accuracy.
"""
_INPUTS = """
Args:
    predictions (list of int): predicted leaf of each example.
    references (list of int): its true leaf.
    levels (list of lists of int): of each level above the leaves, lowest first, the node that each leaf
        belongs to. Without any every mistake has the height 1.
Returns:
    mistake_severity (float): of the mistakes; NaN where there is none.
    hierarchical_distance (float): the mean over all examples, right ones at 0.
Examples:
    Four leaves, kit fox, wolf, oak and rose, below the superclasses animal and plant. A wolf taken for a fox
    is a mistake of height 1, an oak taken for a fox one of height 2:

    >>> metric = evaluate.load("mistake_severity")
    >>> metric.compute(predictions=[0, 0, 0, 3], references=[0, 1, 2, 3], levels=[[0, 0, 1, 1]])
    {'mistake_severity': 1.5, 'hierarchical_distance': 0.75}
"""
_CITATION = """
@inproceedings{bertinetto2020making,
  title={Making Better Mistakes: Leveraging Class Hierarchies with Deep Networks},
  author={Bertinetto, Luca and Mueller, Romain and Tertikas, Konstantinos and others},
  booktitle={CVPR},
  year={2020}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class MistakeSeverity(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions, references, levels=()):
        leaves = [*predictions, *references]
        if not leaves:
            raise ValueError("there are no predictions")
        for number, nodes in enumerate(levels, start=1):
            if min(leaves) < 0 or max(leaves) >= len(nodes):
                raise ValueError(
                    f"predictions and references span {min(leaves)}..{max(leaves)}, level {number} has "
                    f"{len(nodes)} leaves"
                )
        heights = [height(a, b, levels) for a, b in zip(predictions, references)]
        wrong = [value for value in heights if value > 0]
        return {
            "mistake_severity": sum(wrong) / len(wrong) if wrong else float("nan"),
            "hierarchical_distance": sum(heights) / len(heights),
        }


def height(predicted, true, levels):
    """Of the lowest common ancestor; 0 for the same leaf."""
    if predicted == true:
        return 0
    shared = (number for number, nodes in enumerate(levels, start=1) if nodes[predicted] == nodes[true])
    return next(shared, len(levels) + 1)
