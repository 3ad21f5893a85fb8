"""Attacks on any callable from pixels in [0, 1] to logits, on texts and on both; training perturbations."""

from .image.base import ATTACKS, Attack, AttackResult, NanError, check_pixels
from .image.criteria import cross_entropy, margin, misclassified
from .image.pgd import PGD
from .image.superclass import SuperclassAttack, SuperclassView
from .text.base import TEXT_ATTACKS, TextAttack, TextAttackResult
from .text.embedding import EmbeddingAttackResult, EmbeddingPGD
from .text.gradient import GradientAttack
from .text.multimodal import MultimodalAttack, MultimodalResult
from .text.scores import CaptionCrossEntropy, LabelFreeScore, PromptCrossEntropy, coordinate_kl
from .text.words import BertAttack, SynonymAttack
from .training.base import Perturbation
from .training.universal import LeafAttack, PerLevelAttack, UniversalHierarchicalAttack

__all__ = [
    "ATTACKS",
    "PGD",
    "TEXT_ATTACKS",
    "Attack",
    "AttackResult",
    "BertAttack",
    "CaptionCrossEntropy",
    "EmbeddingAttackResult",
    "EmbeddingPGD",
    "GradientAttack",
    "LabelFreeScore",
    "LeafAttack",
    "MultimodalAttack",
    "MultimodalResult",
    "NanError",
    "PerLevelAttack",
    "Perturbation",
    "PromptCrossEntropy",
    "SuperclassAttack",
    "SuperclassView",
    "SynonymAttack",
    "TextAttack",
    "TextAttackResult",
    "UniversalHierarchicalAttack",
    "check_pixels",
    "coordinate_kl",
    "cross_entropy",
    "margin",
    "misclassified",
]
