"""Robust evaluation: attack plans, records and metrics."""

from .records import RobustnessRecord, load_records, save_records
from .robust import Outcome, attack_classifier, judge
from .suite import AttackPlan, EvaluationSet, evaluate_model, with_base

__all__ = [
    "AttackPlan",
    "EvaluationSet",
    "Outcome",
    "RobustnessRecord",
    "attack_classifier",
    "evaluate_model",
    "judge",
    "load_records",
    "save_records",
    "with_base",
]
