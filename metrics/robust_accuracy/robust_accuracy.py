"""Accuracy without and under an attack, on the same examples."""

from __future__ import annotations

import datasets
import evaluate

_DESCRIPTION = """
An example counts as robust if it is right both when clean and under the attack, so that robust accuracy is
never above clean accuracy. It is an upper bound: a stronger attack may lower it. State the attack, its budget
and its steps beside it.
"""
_INPUTS = """
Args:
    predictions (list of int): predicted class of each clean example.
    attacked_predictions (list of int): of the same example under the attack.
    references (list of int): its true class.
Returns:
    clean_accuracy (float), robust_accuracy (float).
    attack_success_rate (float): of the examples that are right when clean, the fraction that the attack
        breaks; NaN where none is right.
Examples:
    >>> metric = evaluate.load("robust_accuracy")
    >>> metric.compute(predictions=[0, 1, 2, 0], attacked_predictions=[0, 2, 1, 3], references=[0, 1, 2, 3])
    {'clean_accuracy': 0.75, 'robust_accuracy': 0.25, 'attack_success_rate': 0.6666666666666666}
"""
_CITATION = """
@inproceedings{madry2018towards,
  title={Towards Deep Learning Models Resistant to Adversarial Attacks},
  author={Madry, Aleksander and Makelov, Aleksandar and Schmidt, Ludwig and others},
  booktitle={ICLR},
  year={2018}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class RobustAccuracy(evaluate.Metric):
    def _info(self):
        names = ("predictions", "attacked_predictions", "references")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({name: datasets.Value("int64") for name in names}),
        )

    def _compute(self, predictions, attacked_predictions, references):
        if not len(references):
            raise ValueError("there are no predictions")
        clean = [a == b for a, b in zip(predictions, references)]
        robust = [right and a == b for right, a, b in zip(clean, attacked_predictions, references)]
        return {
            "clean_accuracy": sum(clean) / len(clean),
            "robust_accuracy": sum(robust) / len(robust),
            "attack_success_rate": 1 - sum(robust) / sum(clean) if any(clean) else float("nan"),
        }
