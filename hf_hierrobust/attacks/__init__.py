"""Attacks on any callable from pixels in [0, 1] to logits, on texts and on both; training perturbations."""

from .base import NanError, NoGradientError, check_pixels
from .image.apgd import APGD, TargetedAPGD
from .image.auto_attack import AutoAttack
from .image.base import ATTACKS, Attack, AttackResult
from .image.criteria import cross_entropy, dlr, margin, misclassified, targeted_dlr
from .image.fab import FAB, TargetedFAB
from .image.last_iterates import LastIterates
from .image.pgd import PGD
from .image.square import Square
from .image.superclass import SuperclassAttack
from .image.superclass_target import SuperclassTarget
from .image.victim import Cost, Victim
from .text.base import TEXT_ATTACKS, TextAttack, TextAttackResult
from .text.embedding import EmbeddingAttackResult, EmbeddingPGD
from .text.gradient import GradientAttack
from .text.joint import JointAttack
from .text.multimodal import MultimodalAttack, MultimodalResult
from .text.scores import LabelFreeScore, PromptCrossEntropy, coordinate_kl
from .text.words import BertAttack, SynonymAttack
from .training.base import TRAINING_ATTACKS, Perturbation, TrainingAttack
from .training.pgd import TrainingPGD
from .training.universal import LeafAttack, PerLevelAttack, UniversalHierarchicalAttack

__all__ = [
    "APGD",
    "ATTACKS",
    "FAB",
    "PGD",
    "TEXT_ATTACKS",
    "TRAINING_ATTACKS",
    "Attack",
    "AttackResult",
    "AutoAttack",
    "BertAttack",
    "Cost",
    "EmbeddingAttackResult",
    "EmbeddingPGD",
    "GradientAttack",
    "JointAttack",
    "LabelFreeScore",
    "LastIterates",
    "LeafAttack",
    "MultimodalAttack",
    "MultimodalResult",
    "NanError",
    "NoGradientError",
    "PerLevelAttack",
    "Perturbation",
    "PromptCrossEntropy",
    "Square",
    "SuperclassAttack",
    "SuperclassTarget",
    "SynonymAttack",
    "TargetedAPGD",
    "TargetedFAB",
    "TextAttack",
    "TextAttackResult",
    "TrainingAttack",
    "TrainingPGD",
    "UniversalHierarchicalAttack",
    "Victim",
    "check_pixels",
    "coordinate_kl",
    "cross_entropy",
    "dlr",
    "margin",
    "misclassified",
    "targeted_dlr",
]
