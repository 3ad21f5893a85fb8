"""What is attacked: zero-shot classifiers by cosine or distance, rolled up or joined over a tree."""

from .freezing import Classifier, frozen
from .levels import LevelClassifier, check_classifiers, level_classifiers, level_prompts
from .rollup import roll_up
from .zero_shot import ZeroShotClassifier

__all__ = [
    "Classifier",
    "LevelClassifier",
    "ZeroShotClassifier",
    "check_classifiers",
    "frozen",
    "level_classifiers",
    "level_prompts",
    "roll_up",
]
