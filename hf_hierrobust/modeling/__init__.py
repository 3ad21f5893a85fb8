"""CLIP and SigLIP wrappers: the hyperbolic head, the differentiable pixel pipeline, zero-shot classifiers."""

from .clip import RobustCLIPModel
from .dual_encoder import HierRobustOutput, RobustDualEncoder
from .encoders import load_robust_model
from .hier_head import HierHead
from .lora import adapters_off, add_lora, lora_config
from .pixels import PixelPipeline
from .reference import ReferenceModel
from .side_files import CorruptSideFileError
from .siglip import RobustSiglipModel
from .text_encoder import TextEncoder, TokenBatch, text_inputs
from .visual_prompts import VisualPrompts, add_visual_prompt, visual_prompt_off
from .zero_shot import ZeroShotClassifier, check_prompt_lengths, encode_prompts

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
    "VisualPrompts",
    "ZeroShotClassifier",
    "adapters_off",
    "add_lora",
    "add_visual_prompt",
    "check_prompt_lengths",
    "encode_prompts",
    "load_robust_model",
    "lora_config",
    "text_inputs",
    "visual_prompt_off",
]
