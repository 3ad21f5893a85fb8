"""Robust evaluation: attack plans, the engine that runs them, records and metrics."""

from .compare import compare, with_base
from .hf_metric import hierarchical_accuracy
from .measure import evaluate_model, measure
from .plan import AttackPlan, build_attacks, check_levels
from .record_files import load_records, save_records
from .records import RobustnessRecord, records_hash
from .runner import Job, attack_classifier, judge, run_jobs
from .sets import EvaluationSet
from .shards import Shards
from .state import EvaluationState, StateError
from .targets import Target
from .verdicts import Outcome

__all__ = [
    "AttackPlan",
    "EvaluationSet",
    "EvaluationState",
    "Job",
    "Outcome",
    "RobustnessRecord",
    "Shards",
    "StateError",
    "Target",
    "attack_classifier",
    "build_attacks",
    "check_levels",
    "compare",
    "evaluate_model",
    "hierarchical_accuracy",
    "judge",
    "load_records",
    "measure",
    "records_hash",
    "run_jobs",
    "save_records",
    "with_base",
]
