from .attacks import (
    APGD as APGD,
    ATTACKS as ATTACKS,
    FAB as FAB,
    PGD as PGD,
    TEXT_ATTACKS as TEXT_ATTACKS,
    TRAINING_ATTACKS as TRAINING_ATTACKS,
    Attack as Attack,
    AutoAttack as AutoAttack,
    BertAttack as BertAttack,
    EmbeddingPGD as EmbeddingPGD,
    GradientAttack as GradientAttack,
    MultimodalAttack as MultimodalAttack,
    Perturbation as Perturbation,
    Square as Square,
    SuperclassAttack as SuperclassAttack,
    SynonymAttack as SynonymAttack,
    TargetedAPGD as TargetedAPGD,
    TargetedFAB as TargetedFAB,
    TextAttack as TextAttack,
    TrainingAttack as TrainingAttack,
    UniversalHierarchicalAttack as UniversalHierarchicalAttack,
    Victim as Victim,
)
from .classifiers import (
    Classifier as Classifier,
    ZeroShotClassifier as ZeroShotClassifier,
    level_classifiers as level_classifiers,
)
from .data import (
    ClassSet as ClassSet,
    PixelCollator as PixelCollator,
    PixelDataset as PixelDataset,
    as_images as as_images,
    class_set_of as class_set_of,
    load_class_set as load_class_set,
    load_images as load_images,
)
from .evaluation import (
    AttackPlan as AttackPlan,
    EvaluationSet as EvaluationSet,
    RobustnessRecord as RobustnessRecord,
    evaluate_model as evaluate_model,
)
from .hierarchy import Forest as Forest, LabelTree as LabelTree, load_forest as load_forest
from .modeling import (
    PixelPipeline as PixelPipeline,
    RobustCLIPModel as RobustCLIPModel,
    RobustSiglipModel as RobustSiglipModel,
    TextEncoder as TextEncoder,
    encode_prompts as encode_prompts,
    load_robust_model as load_robust_model,
)
from .objectives import (
    AGFT as AGFT,
    FARE as FARE,
    OBJECTIVES as OBJECTIVES,
    PMGAFT as PMGAFT,
    TGAZSR as TGAZSR,
    AdvFLYP as AdvFLYP,
    Clean as Clean,
    Composite as Composite,
    CompTGA as CompTGA,
    HierAGFT as HierAGFT,
    HierMMCoA as HierMMCoA,
    HierRobust as HierRobust,
    MMCoA as MMCoA,
    Objective as Objective,
    Plain as Plain,
    Targets as Targets,
    TeCoA as TeCoA,
    View as View,
)
from .reports import records_table as records_table
from .runs.evaluate import evaluate as evaluate
from .threat import ThreatModel as ThreatModel
from .training import (
    RobustCLIPTrainer as RobustCLIPTrainer,
    RobustTrainingArguments as RobustTrainingArguments,
)
