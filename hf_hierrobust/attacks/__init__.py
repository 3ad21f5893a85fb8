"""Attacks on any callable from pixels in [0, 1] to logits, on texts and on both; training perturbations."""

from .base import ATTACKS, Attack, AttackResult, NanError, Perturbation, check_pixels, frozen
from .criteria import cross_entropy, margin, misclassified, roll_up
from .hierarchical import (
    LeafAttack,
    PerLevelAttack,
    SuperclassAttack,
    SuperclassView,
    UniversalHierarchicalAttack,
)
from .multimodal import MultimodalAttack, MultimodalResult
from .pgd import PGD
from .text_base import TEXT_ATTACKS, TextAttack, TextAttackResult
from .text_embedding import EmbeddingAttackResult, EmbeddingPGD
from .text_gradient import GradientAttack
from .text_scores import CaptionCrossEntropy, LabelFreeScore, PromptCrossEntropy, coordinate_kl
from .text_words import BertAttack, SynonymAttack

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
    "frozen",
    "margin",
    "misclassified",
    "roll_up",
]
