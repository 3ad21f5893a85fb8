"""Robust evaluation: attack plans, the engine that runs them, records and metrics."""

from .compare import compare, with_base
from .hf_metric import hierarchical_accuracy
from .measure import Target, evaluate_model, measure
from .plan import AttackPlan, EvaluationSet, build_attacks
from .record_files import load_records, save_records
from .records import RobustnessRecord
from .runner import Job, attack_classifier, judge, run_jobs
from .verdicts import Outcome

__all__ = [
    "AttackPlan",
    "EvaluationSet",
    "Job",
    "Outcome",
    "RobustnessRecord",
    "Target",
    "attack_classifier",
    "build_attacks",
    "compare",
    "evaluate_model",
    "hierarchical_accuracy",
    "judge",
    "load_records",
    "measure",
    "run_jobs",
    "save_records",
    "with_base",
]
