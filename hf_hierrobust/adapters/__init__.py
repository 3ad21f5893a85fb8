"""LoRA and visual prompts inside a dual encoder, which parameters train, and proof that the others do not."""

from .lora import adapters_off, add_lora, lora_config
from .trainable import set_trainable
from .visual_prompts import VisualPrompts, add_visual_prompt, visual_prompt_off

__all__ = [
    "VisualPrompts",
    "adapters_off",
    "add_lora",
    "add_visual_prompt",
    "lora_config",
    "set_trainable",
    "visual_prompt_off",
]
