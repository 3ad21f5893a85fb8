"""CLIP and SigLIP wrappers: the hyperbolic head, the differentiable pixel pipeline, zero-shot classifiers."""

from .clip import RobustCLIPModel
from .dual_encoder import HierRobustOutput, RobustDualEncoder
from .encoders import as_robust_model, load_robust_model
from .hier_head import HierHead
from .pixels import PixelPipeline
from .prompts import encode_prompts
from .reference import ReferenceModel
from .side_files import CorruptSideFileError
from .siglip import RobustSiglipModel
from .sources import load_processor
from .text_checks import TokenizerError, check_prompts
from .text_encoder import TextEncoder, TokenBatch, text_inputs

__all__ = [
    "CorruptSideFileError",
    "HierHead",
    "HierRobustOutput",
    "PixelPipeline",
    "ReferenceModel",
    "RobustCLIPModel",
    "RobustDualEncoder",
    "RobustSiglipModel",
    "TextEncoder",
    "TokenBatch",
    "TokenizerError",
    "as_robust_model",
    "check_prompts",
    "encode_prompts",
    "load_processor",
    "load_robust_model",
    "text_inputs",
]
