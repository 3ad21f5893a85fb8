from .behind import modules_behind as modules_behind
from .classifier import Classifier as Classifier, as_classifier as as_classifier, read_logits as read_logits
from .counterattack import TTC as TTC, Averaged as Averaged, Counterattacked as Counterattacked
from .freezing import frozen as frozen
from .levels import (
    LevelClassifier as LevelClassifier,
    check_classifiers as check_classifiers,
    level_classifiers as level_classifiers,
    level_prompts as level_prompts,
    merge_twins as merge_twins,
)
from .network import network_classifiers as network_classifiers
from .rollup import SuperclassView as SuperclassView, roll_up as roll_up
from .shared import (
    Parts as Parts,
    parts_of as parts_of,
    passes_of as passes_of,
    shared_logits as shared_logits,
)
from .steadiness import UnsteadyClassifierWarning as UnsteadyClassifierWarning
from .zero_shot import ZeroShotClassifier as ZeroShotClassifier
