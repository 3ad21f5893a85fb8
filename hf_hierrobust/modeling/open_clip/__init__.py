"""Weights under open_clip's names, as robust CLIPs are published, to and from stock `CLIPModel` ones."""

from .architecture import Architecture, architecture_of
from .config_files import (
    CONFIG_FILE,
    Preprocessing,
    model_cfg,
    preprocessing_from,
    preprocessing_of,
    read_config_file,
)
from .names import from_open_clip, to_open_clip
from .reading import WeightsError, read_weights

__all__ = [
    "CONFIG_FILE",
    "Architecture",
    "Preprocessing",
    "WeightsError",
    "architecture_of",
    "from_open_clip",
    "model_cfg",
    "preprocessing_from",
    "preprocessing_of",
    "read_config_file",
    "read_weights",
    "to_open_clip",
]
