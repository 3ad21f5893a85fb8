"""CLIP wrappers: the hyperbolic head, the differentiable pixel pipeline, zero-shot classifiers."""

from .clip import CorruptSideFileError, HierRobustOutput, RobustCLIPModel
from .hier_head import HierHead
from .pixels import PixelPipeline
from .zero_shot import ZeroShotClassifier, encode_prompts

__all__ = [
    "CorruptSideFileError",
    "HierHead",
    "HierRobustOutput",
    "PixelPipeline",
    "RobustCLIPModel",
    "ZeroShotClassifier",
    "encode_prompts",
]
