"""Adversarially robust CLIP fine-tuning for the Hugging Face stack."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# Public names by room; a room is imported when one of its names is first used.
_ROOMS = {
    "attacks": (
        "PGD",
        "BertAttack",
        "EmbeddingPGD",
        "GradientAttack",
        "MultimodalAttack",
        "SuperclassAttack",
        "SynonymAttack",
        "UniversalHierarchicalAttack",
    ),
    "data": ("ClassSet", "PixelCollator", "PixelDataset", "load_class_set", "load_images"),
    "evaluation": ("AttackPlan", "EvaluationSet", "RobustnessRecord", "evaluate_model", "level_classifiers"),
    "hierarchy": ("Forest", "LabelTree", "load_tree"),
    "modeling": (
        "PixelPipeline",
        "RobustCLIPModel",
        "RobustSiglipModel",
        "TextEncoder",
        "ZeroShotClassifier",
        "encode_prompts",
        "load_robust_model",
    ),
    "objectives": (
        "AGFT",
        "FARE",
        "PMGAFT",
        "TGAZSR",
        "AdvFLYP",
        "Clean",
        "CompTGA",
        "Composite",
        "HierAGFT",
        "HierMMCoA",
        "HierRobust",
        "MMCoA",
        "Objective",
        "Plain",
        "TeCoA",
    ),
    "threat": ("ThreatModel",),
    "training": ("RobustCLIPTrainer", "RobustTrainingArguments"),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

if TYPE_CHECKING:
    from .attacks import (
        PGD,
        BertAttack,
        EmbeddingPGD,
        GradientAttack,
        MultimodalAttack,
        SuperclassAttack,
        SynonymAttack,
        UniversalHierarchicalAttack,
    )
    from .data import ClassSet, PixelCollator, PixelDataset, load_class_set, load_images
    from .evaluation import AttackPlan, EvaluationSet, RobustnessRecord, evaluate_model, level_classifiers
    from .hierarchy import Forest, LabelTree, load_tree
    from .modeling import (
        PixelPipeline,
        RobustCLIPModel,
        RobustSiglipModel,
        TextEncoder,
        ZeroShotClassifier,
        encode_prompts,
        load_robust_model,
    )
    from .objectives import (
        AGFT,
        FARE,
        PMGAFT,
        TGAZSR,
        AdvFLYP,
        Clean,
        Composite,
        CompTGA,
        HierAGFT,
        HierMMCoA,
        HierRobust,
        MMCoA,
        Objective,
        Plain,
        TeCoA,
    )
    from .threat import ThreatModel
    from .training import RobustCLIPTrainer, RobustTrainingArguments

__all__ = [*sorted(_ROOM_OF), "__version__"]


def __getattr__(name: str):
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_ROOM_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
