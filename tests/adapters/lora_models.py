"""The tiny CLIP with adapters."""

from __future__ import annotations

import torch

from hf_hierrobust.adapters import add_lora, lora_config
from hf_hierrobust.adapters.lora import adapter_parameters
from hf_hierrobust.adapters.trainable import set_trainable
from hf_hierrobust.modeling import RobustCLIPModel

HIER = ("vision", "text_projection", "hier_head")
BOTH = ("vision", "text", "text_projection")


def with_lora(directory, groups=HIER, config=None, **options) -> RobustCLIPModel:
    model = RobustCLIPModel.from_pretrained(directory).eval()
    add_lora(model, config or lora_config(groups, **{"r": 4, **options}), seed=3)
    set_trainable(model, groups)
    return model


def trained(directory, *args, **kwargs) -> RobustCLIPModel:
    """Adapters away from their start, as after training."""
    model = with_lora(directory, *args, **kwargs)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in adapter_parameters(model).values():
            for parameter in part.values():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model
