from .attacks import (
    PGD as PGD,
)
from .attacks import (
    BertAttack as BertAttack,
)
from .attacks import (
    EmbeddingPGD as EmbeddingPGD,
)
from .attacks import (
    GradientAttack as GradientAttack,
)
from .attacks import (
    MultimodalAttack as MultimodalAttack,
)
from .attacks import (
    SuperclassAttack as SuperclassAttack,
)
from .attacks import (
    SynonymAttack as SynonymAttack,
)
from .attacks import (
    UniversalHierarchicalAttack as UniversalHierarchicalAttack,
)
from .classifiers import ZeroShotClassifier as ZeroShotClassifier
from .classifiers import level_classifiers as level_classifiers
from .data import (
    ClassSet as ClassSet,
)
from .data import (
    PixelCollator as PixelCollator,
)
from .data import (
    PixelDataset as PixelDataset,
)
from .data import (
    as_images as as_images,
)
from .data import (
    class_set_of as class_set_of,
)
from .data import (
    load_class_set as load_class_set,
)
from .data import (
    load_images as load_images,
)
from .evaluation import (
    AttackPlan as AttackPlan,
)
from .evaluation import (
    EvaluationSet as EvaluationSet,
)
from .evaluation import (
    RobustnessRecord as RobustnessRecord,
)
from .evaluation import (
    evaluate_model as evaluate_model,
)
from .hierarchy import Forest as Forest
from .hierarchy import LabelTree as LabelTree
from .hierarchy import load_forest as load_forest
from .modeling import (
    PixelPipeline as PixelPipeline,
)
from .modeling import (
    RobustCLIPModel as RobustCLIPModel,
)
from .modeling import (
    RobustSiglipModel as RobustSiglipModel,
)
from .modeling import (
    TextEncoder as TextEncoder,
)
from .modeling import (
    encode_prompts as encode_prompts,
)
from .modeling import (
    load_robust_model as load_robust_model,
)
from .objectives import (
    AGFT as AGFT,
)
from .objectives import (
    FARE as FARE,
)
from .objectives import (
    PMGAFT as PMGAFT,
)
from .objectives import (
    TGAZSR as TGAZSR,
)
from .objectives import (
    AdvFLYP as AdvFLYP,
)
from .objectives import (
    Clean as Clean,
)
from .objectives import (
    Composite as Composite,
)
from .objectives import (
    CompTGA as CompTGA,
)
from .objectives import (
    HierAGFT as HierAGFT,
)
from .objectives import (
    HierMMCoA as HierMMCoA,
)
from .objectives import (
    HierRobust as HierRobust,
)
from .objectives import (
    MMCoA as MMCoA,
)
from .objectives import (
    Objective as Objective,
)
from .objectives import (
    Plain as Plain,
)
from .objectives import (
    TeCoA as TeCoA,
)
from .reports import records_table as records_table
from .runs.evaluate import evaluate as evaluate
from .threat import ThreatModel as ThreatModel
from .training import RobustCLIPTrainer as RobustCLIPTrainer
from .training import RobustTrainingArguments as RobustTrainingArguments
