"""The right class for a checkpoint."""

from __future__ import annotations

from .clip import RobustCLIPModel
from .dual_encoder import RobustDualEncoder
from .siglip import RobustSiglipModel
from .sources import dual_encoder_type, hub_options

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
