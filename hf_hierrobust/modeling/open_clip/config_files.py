"""``open_clip_config.json``: what stands beside the weights in a repository of open_clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import CLIPConfig, CLIPImageProcessor

from ...files import read_json
from .reading import WeightsError

CONFIG_FILE = "open_clip_config.json"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of OpenAI's training images, what CLIPs are normalised by unless their config says otherwise."""
_RESAMPLING = {"bilinear": 2, "bicubic": 3}


@dataclass(frozen=True)
class Preprocessing:
    """How images reach the network; mean and std are those of pixels in [0, 1].

    Attributes:
        squash: resized to a square whatever the shape, instead of by the short edge and cropped.
    """

    size: int
    mean: Sequence[float] = MEAN
    std: Sequence[float] = STD
    interpolation: str = "bicubic"
    squash: bool = False

    def image_processor(self) -> CLIPImageProcessor:
        square = {"height": self.size, "width": self.size}
        return CLIPImageProcessor(
            size=square if self.squash else {"shortest_edge": self.size},
            crop_size=square,
            do_center_crop=not self.squash,
            resample=_RESAMPLING[self.interpolation],
            image_mean=list(self.mean),
            image_std=list(self.std),
        )

    def cfg(self) -> dict[str, Any]:
        """``preprocess_cfg`` of open_clip."""
        return {
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
            "resize_mode": "squash" if self.squash else "shortest",
        }


def read_config_file(path: str | Path) -> tuple[dict, dict]:
    """``model_cfg`` and ``preprocess_cfg`` of an ``open_clip_config.json``.

    Raises:
        FileFormatError: it is no JSON.
        WeightsError: a part is no object, or a size no positive number.
    """
    found = read_json(path)
    parts = (
        [found.get(key, {}) for key in ("model_cfg", "preprocess_cfg")] if isinstance(found, dict) else [0]
    )
    if not all(isinstance(part, dict) for part in parts):
        raise WeightsError(f"{path} must hold an object with the objects model_cfg and preprocess_cfg")
    towers = {key: parts[0].get(key, {}) for key in ("vision_cfg", "text_cfg")}
    for key, cfg in towers.items():
        if not isinstance(cfg, dict):
            raise WeightsError(f"{path}: model_cfg.{key}={cfg!r} must be an object")
        for size in ("head_width", "heads"):
            if size in cfg and (type(cfg[size]) is not int or cfg[size] < 1):
                raise WeightsError(f"{path}: {key}.{size}={cfg[size]!r} must be an integer >= 1")
    if not isinstance(parts[0].get("quick_gelu", False), bool):
        raise WeightsError(f"{path}: quick_gelu={parts[0]['quick_gelu']!r} must be true or false")
    return parts[0], parts[1]


def preprocessing_of(stored: Mapping | None, size: int, name: str) -> Preprocessing:
    """``preprocess_cfg`` of a config, at the size that the weights have.

    Raises:
        WeightsError: three positive numbers, a resize mode or an interpolation are wanted and not there.
    """
    stored = stored or {}
    for key in ("mean", "std"):
        values = stored.get(key, MEAN)
        ok = (
            isinstance(values, list | tuple)
            and len(values) == 3
            and all(isinstance(v, float | int) for v in values)
        )
        if not ok or (key == "std" and min(values) <= 0):
            raise WeightsError(
                f"{name}: preprocess_cfg.{key}={values!r} must be three numbers, those of std > 0"
            )
    for key, known in (("interpolation", tuple(_RESAMPLING)), ("resize_mode", ("shortest", "squash"))):
        if stored.get(key, known[-1] if key == "interpolation" else known[0]) not in known:
            raise WeightsError(f"{name}: preprocess_cfg.{key}={stored[key]!r} is none of {', '.join(known)}")
    return Preprocessing(
        size,
        tuple(stored.get("mean", MEAN)),
        tuple(stored.get("std", STD)),
        stored.get("interpolation", "bicubic"),
        stored.get("resize_mode") == "squash",
    )


def preprocessing_from(image_processor) -> Preprocessing:
    """What a processor of transformers does, if open_clip can do it too.

    Raises:
        ValueError: it cannot.
    """
    sizes = dict(image_processor.size)
    crop = dict(image_processor.crop_size or {}) if image_processor.do_center_crop else {}
    squash = not crop and sizes.get("height") is not None
    size = sizes["height"] if squash else sizes.get("shortest_edge")
    square = {"height": size, "width": size}
    names = {code: name for name, code in _RESAMPLING.items()}
    given = {key: value for key, value in (sizes if squash else crop).items() if value is not None}
    if given != square or int(image_processor.resample) not in names or not image_processor.do_normalize:
        raise ValueError(
            f"the image processor (size={sizes}, crop_size={crop}, resample={image_processor.resample!r}) is "
            "none of open_clip's: resize to the short edge and crop to its square, or to a square at once"
        )
    return Preprocessing(
        size,
        tuple(image_processor.image_mean),
        tuple(image_processor.image_std),
        names[int(image_processor.resample)],
        squash,
    )


def model_cfg(config: CLIPConfig) -> dict[str, Any]:
    """``model_cfg`` of open_clip for a config of transformers.

    Raises:
        ValueError: towers of two activations, another one than GELU and quick GELU, or other norms.
    """
    vision, text = config.vision_config, config.text_config
    pooling = {}  # at the highest token, as an end token of 2 says it in old configs
    if text.eos_token_id not in (2, text.vocab_size - 1):
        pooling = {"pool_type": "eos", "eos_id": text.eos_token_id, "pad_id": text.pad_token_id}
    if vision.hidden_act != text.hidden_act or vision.hidden_act not in ("gelu", "quick_gelu"):
        raise ValueError(
            f"open_clip has gelu or quick_gelu in both towers, not {vision.hidden_act!r} for images and "
            f"{text.hidden_act!r} for texts"
        )
    if {vision.layer_norm_eps, text.layer_norm_eps} != {1e-5}:
        raise ValueError(
            f"open_clip's norms have eps 1e-5, not {vision.layer_norm_eps}, {text.layer_norm_eps}"
        )
    return {
        "embed_dim": config.projection_dim,
        "quick_gelu": vision.hidden_act == "quick_gelu",
        "vision_cfg": {
            "image_size": vision.image_size,
            "layers": vision.num_hidden_layers,
            "width": vision.hidden_size,
            "head_width": vision.hidden_size // vision.num_attention_heads,
            "patch_size": vision.patch_size,
            "mlp_ratio": vision.intermediate_size / vision.hidden_size,
        },
        "text_cfg": {
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "width": text.hidden_size,
            "heads": text.num_attention_heads,
            "layers": text.num_hidden_layers,
            "mlp_ratio": text.intermediate_size / text.hidden_size,
            **pooling,
        },
    }
