"""Accuracy at every level of a class tree, from leaf predictions."""

from __future__ import annotations

import datasets
import evaluate

_DESCRIPTION = """
Accuracy of the leaves, and of each level above them: there a prediction is right if it has the same
ancestor as the truth. Accuracies never fall from a level to the next one.
"""
_INPUTS = """
Args:
    predictions (list of int): predicted leaf of each example.
    references (list of int): its true leaf.
    levels (list of lists of int): of each level above the leaves, lowest first, the node that each leaf
        belongs to. Without any there are the leaves alone.
Returns:
    accuracy (float): of the leaves.
    accuracy_level_1, accuracy_level_2, ... (float): of the levels.
Examples:
    Four leaves, kit fox, wolf, oak and rose, below the superclasses animal and plant:

    >>> metric = evaluate.load("hierarchical_accuracy")
    >>> metric.compute(predictions=[0, 0, 0, 3], references=[0, 1, 2, 3], levels=[[0, 0, 1, 1]])
    {'accuracy': 0.5, 'accuracy_level_1': 0.75}
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
class HierarchicalAccuracy(evaluate.Metric):
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
        check_levels(levels, [*predictions, *references])
        pairs = list(zip(predictions, references))
        found = {"accuracy": sum(a == b for a, b in pairs) / len(pairs)}
        for number, nodes in enumerate(levels, start=1):
            found[f"accuracy_level_{number}"] = sum(nodes[a] == nodes[b] for a, b in pairs) / len(pairs)
        return found


def check_levels(levels, leaves):
    """Refuse levels of unequal lengths, that part what a lower one joins, or that lack a leaf."""
    if not leaves:
        raise ValueError("there are no predictions")
    sizes = {len(nodes) for nodes in levels}
    if len(sizes) > 1:
        raise ValueError(f"levels have {sorted(sizes)} entries: each needs one for every leaf")
    if min(leaves) < 0 or (sizes and max(leaves) >= min(sizes)):
        count = f"0..{min(sizes) - 1}" if sizes else "0 and up"
        raise ValueError(f"predictions and references span {min(leaves)}..{max(leaves)}: leaves are {count}")
    for number, (lower, upper) in enumerate(zip(levels, list(levels)[1:]), start=2):
        if len(set(zip(lower, upper))) > len(set(lower)):
            raise ValueError(f"level {number} parts leaves that the level below joins: it is no tree")
