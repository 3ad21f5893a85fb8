"""Attacks on any callable from pixels in [0, 1] to logits, and training-time perturbations."""

from .base import ATTACKS, Attack, AttackResult, NanError, Perturbation, check_pixels, frozen
from .criteria import cross_entropy, margin, misclassified, roll_up
from .hierarchical import (
    LeafAttack,
    PerLevelAttack,
    SuperclassAttack,
    SuperclassView,
    UniversalHierarchicalAttack,
)
from .pgd import PGD

__all__ = [
    "ATTACKS",
    "PGD",
    "Attack",
    "AttackResult",
    "LeafAttack",
    "NanError",
    "PerLevelAttack",
    "Perturbation",
    "SuperclassAttack",
    "SuperclassView",
    "UniversalHierarchicalAttack",
    "check_pixels",
    "cross_entropy",
    "frozen",
    "margin",
    "misclassified",
    "roll_up",
]
