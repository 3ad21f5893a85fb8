"""The right class for a checkpoint or for a model that another library loaded."""

from __future__ import annotations

import copy
import os

import torch
from torch import nn
from transformers import PreTrainedModel, logging

from ..adapters.lora import adopt_adapter, unwrapped_state
from .clip import RobustCLIPModel
from .dual_encoder import RobustDualEncoder
from .siglip import RobustSiglipModel
from .sources import dual_encoder_type, hub_options

logger = logging.get_logger(__name__)

FAMILIES: dict[str, type[RobustDualEncoder]] = {"clip": RobustCLIPModel, "siglip": RobustSiglipModel}
"""Model class of each supported ``model_type``."""


def load_robust_model(name_or_path, **kwargs):
    """Load a CLIP or SigLIP checkpoint, ours or stock, as the class of its family.

    Args:
        name_or_path: folder or Hub id.
        **kwargs: as of `RobustDualEncoder.from_pretrained`, whose result is returned.

    Raises:
        ValueError: the checkpoint is neither; see `RobustDualEncoder.from_pretrained` for other errors.
    """
    model_type = dual_encoder_type(name_or_path, **hub_options(kwargs))
    return FAMILIES[model_type].from_pretrained(name_or_path, **kwargs)


def as_robust_model(model: str | os.PathLike | nn.Module) -> RobustDualEncoder:
    """Whatever stands for a dual encoder as a model of ours, in fp32.

    Args:
        model: a folder or Hub id; a model of ours, which is returned; a stock `CLIPModel` or `SiglipModel`,
            whose weights are copied; or a `PeftModel` around one of these: weights are copied and its one
            adapter goes on training.

    Raises:
        TypeError: something else, or a model without images or text.
        ValueError: quantised weights, or a `PeftModel` with several adapters.
    """
    if isinstance(model, (str, os.PathLike)):
        return load_robust_model(model)
    if not isinstance(model, RobustDualEncoder):
        model = _converted(model)
    dtypes = {p.dtype for p in model.parameters()} - {torch.float32}
    if any(not dtype.is_floating_point for dtype in dtypes):
        raise ValueError(
            f"model holds quantised weights ({min(map(str, dtypes))}): attacks and training need gradients "
            "through all of it; load it unquantised, in float32"
        )
    if dtypes:
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        logger.warning(f"model is in {names}: turned to float32, in which steps of an attack are not lost")
        model.float()
    return _returning_objects(model)


def _converted(model: nn.Module) -> RobustDualEncoder:
    stock = getattr(model, "get_base_model", lambda: model)()  # the model inside a PeftModel
    family = FAMILIES.get(getattr(getattr(stock, "config", None), "model_type", None))
    if family is None or not isinstance(stock, PreTrainedModel) or not hasattr(stock, "text_model"):
        raise TypeError(
            f"model is a {type(stock).__name__}, not a dual encoder of images and text that can be trained "
            "here: give a Hub id, a folder, a CLIPModel or a SiglipModel"
        )
    with torch.random.fork_rng(devices=[]):  # weights are drawn, then replaced
        found = family(copy.deepcopy(stock.config))
    state = unwrapped_state(model)
    found.to(next(iter(state.values())).device).load_state_dict(state, strict=isinstance(stock, type(found)))
    found.name_or_path = stock.name_or_path
    if stock is not model:
        adopt_adapter(found, model)
    return found.train(model.training)


def _returning_objects(model: RobustDualEncoder) -> RobustDualEncoder:
    """Undo ``return_dict=False``: all code here reads outputs by name."""
    for config in (model.config, *(getattr(model.config, name) for name in model.config.sub_configs)):
        if not getattr(config, "return_dict", True):
            config.return_dict = True
    return model
