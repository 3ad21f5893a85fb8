"""Robust evaluation: attack plans, classifiers per level, records, metrics and figures."""

from .hierarchical import LevelClassifier, check_classifiers, level_classifiers, level_prompts
from .records import RobustnessRecord, load_records, records_table, save_records
from .robust import Outcome, attack_classifier
from .suite import AttackPlan, EvaluationSet, evaluate_model, with_base

__all__ = [
    "AttackPlan",
    "EvaluationSet",
    "LevelClassifier",
    "Outcome",
    "RobustnessRecord",
    "attack_classifier",
    "check_classifiers",
    "evaluate_model",
    "level_classifiers",
    "level_prompts",
    "load_records",
    "records_table",
    "save_records",
    "with_base",
]
