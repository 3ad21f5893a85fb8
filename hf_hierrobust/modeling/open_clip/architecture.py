"""Which network a state dict holds, read off the shapes of its tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from .names import to_open_clip
from .reading import WeightsError

_HEAD_WIDTH = {1280: 80, 1408: 88, 1664: 104}
"""Width of an attention head where it is not 64: ViT-H, -g and -bigG, by the tower's width."""
_REFUSED = {
    "vision_cfg": (
        "timm_model_name",
        "ls_init_value",
        "attentional_pool",
        "no_ln_pre",
        "final_ln_after_pool",
    ),
    "text_cfg": ("hf_model_name", "embed_cls", "no_causal_mask", "ls_init_value", "proj_bias"),
}
_WANTED = {
    "vision_cfg": {"pool_type": ("tok",), "pos_embed_type": ("learnable",)},
    "text_cfg": {"pool_type": ("argmax", "eos")},
}


@dataclass(frozen=True)
class Architecture:
    """A CLIP of two transformers: the arguments of `CLIPVisionConfig` and `CLIPTextConfig`.

    Attributes:
        vision, text: without activation and special tokens; ``text`` is empty for an image tower alone.
    """

    projection_dim: int
    vision: dict[str, int]
    text: dict[str, int]

    def config(self, activation: str, text: Mapping) -> CLIPConfig:
        """The config; ``text`` adds to what the text tower's says, or replaces it."""
        shared = {"hidden_act": activation, "projection_dim": self.projection_dim}
        return CLIPConfig(
            text_config={**self.text, **shared, **text},
            vision_config={**self.vision, **shared},
            projection_dim=self.projection_dim,
        )


def architecture_of(
    state: Mapping[str, Tensor], stored: Mapping | None = None, name: str = "weights"
) -> Architecture:
    """The network of a state dict under open_clip's names.

    Args:
        stored: ``model_cfg`` of its ``open_clip_config.json``, which has to agree.
        name: what messages call the weights.

    Raises:
        WeightsError: tensors are missing, unknown or of a shape that does not fit the others, or ``stored``
            says something else; one line names the first.
    """
    stored = stored or {}
    _check_kind(stored, name)
    conv = _matrix(state, "visual.conv1.weight", 4, name)
    positions = _matrix(state, "visual.positional_embedding", 2, name)
    projection = _matrix(state, "visual.proj", 2, name)
    width, patch = conv.shape[0], conv.shape[-1]
    grid = math.isqrt(max(positions.shape[0] - 1, 0))
    if grid * grid + 1 != positions.shape[0] or grid == 0:
        raise WeightsError(
            f"{name}: visual.positional_embedding has {positions.shape[0]} rows, not one for the class and a "
            "square of patches"
        )
    vision = _tower(state, "visual.", width, name) | {
        "num_attention_heads": _heads(width, stored.get("vision_cfg", {}).get("head_width"), name),
        "image_size": grid * patch,
        "patch_size": patch,
    }
    text: dict[str, int] = {}
    if any(not key.startswith("visual.") for key in state):
        tokens = _matrix(state, "token_embedding.weight", 2, name)
        heads = stored.get("text_cfg", {}).get("heads")
        width = tokens.shape[1]
        text = _tower(state, "", width, name) | {
            "num_attention_heads": _heads(width, width // heads if heads else 64, name),
            "vocab_size": tokens.shape[0],
            "max_position_embeddings": _matrix(state, "positional_embedding", 2, name).shape[0],
        }
    found = Architecture(projection.shape[1], vision, text)
    _check_tensors(state, found, name)
    _check_stored(stored, found, name)
    return found


def _matrix(state: Mapping[str, Tensor], key: str, dims: int, name: str) -> Tensor:
    if key not in state:
        raise WeightsError(f"{name} lacks {key}, which every ViT of CLIP has")
    if state[key].ndim != dims or 0 in state[key].shape:
        raise WeightsError(f"{name}: {key} has shape {tuple(state[key].shape)}, {dims} dimensions are wanted")
    return state[key]


def _tower(state: Mapping[str, Tensor], prefix: str, width: int, name: str) -> dict[str, int]:
    block = re.compile(re.escape(prefix) + r"transformer\.resblocks\.(\d+)\.")
    layers = {found[1] for key in state if (found := block.match(key))}
    first = _matrix(state, f"{prefix}transformer.resblocks.0.mlp.c_fc.weight", 2, name)
    return {"hidden_size": width, "intermediate_size": first.shape[0], "num_hidden_layers": len(layers)}


def _heads(width: int, head_width: int | None, name: str) -> int:
    head = head_width or _HEAD_WIDTH.get(width, 64)
    if width % head:
        raise WeightsError(
            f"{name}: a width of {width} is no multiple of {head}, the width of a head: an "
            "open_clip_config.json beside the weights can say it (vision_cfg.head_width, text_cfg.heads)"
        )
    return width // head


def _check_tensors(state: Mapping[str, Tensor], found: Architecture, name: str) -> None:
    text = found.text or {
        "vocab_size": 4,
        "max_position_embeddings": 4,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
    }
    whole = Architecture(found.projection_dim, found.vision, text)
    with torch.device("meta"):
        wanted = to_open_clip(CLIPModel(whole.config("gelu", {})).state_dict())
    shapes = {k: tuple(v.shape) for k, v in wanted.items() if found.text or k.startswith("visual.")}
    if missing := [key for key in shapes if key not in state]:
        raise WeightsError(f"{name} lacks {_some(missing)}, which a ViT of CLIP with these shapes has")
    if unknown := [key for key in state if key not in shapes]:
        raise WeightsError(f"{name} holds {_some(unknown)}, which no ViT of CLIP with these shapes has")
    for key, shape in shapes.items():
        has = tuple(state[key].shape)
        if has != shape and not (key == "logit_scale" and has == (1,)):
            raise WeightsError(f"{name}: {key} has shape {has}, the other tensors ask for {shape}")


def _some(keys: list[str]) -> str:
    return f"{keys[0]!r}" + (f" and {len(keys) - 1} more tensors" if len(keys) > 1 else "")


def _check_kind(stored: Mapping, name: str) -> None:
    for part, options in _REFUSED.items():
        cfg = stored.get(part, {})
        for option in options:
            if cfg.get(option):
                raise WeightsError(f"{name}: {part}.{option}={cfg[option]!r} is no ViT of CLIP's own kind")
        for option, wanted in _WANTED[part].items():
            if cfg.get(option, wanted[0]) not in wanted:
                raise WeightsError(
                    f"{name}: {part}.{option}={cfg[option]!r}, CLIP's classes know {wanted!r} only"
                )


def _check_stored(stored: Mapping, found: Architecture, name: str) -> None:
    """The config's numbers are those of the tensors: files of two models may lie side by side."""
    vision = {"image_size": "image_size", "patch_size": "patch_size", "width": "hidden_size"}
    text = {"context_length": "max_position_embeddings", "vocab_size": "vocab_size", "width": "hidden_size"}
    tables = (("vision_cfg", found.vision, vision), ("text_cfg", found.text, text))
    for part, has, names in tables:
        for theirs, ours in (names | {"layers": "num_hidden_layers"}).items():
            said = stored.get(part, {}).get(theirs)
            if has and said is not None and said not in (has[ours], [has[ours]] * 2):
                raise WeightsError(
                    f"{name}: its config says {part}.{theirs}={said!r}, its tensors {has[ours]}"
                )
    if stored.get("embed_dim", found.projection_dim) != found.projection_dim:
        raise WeightsError(
            f"{name}: its config says embed_dim={stored['embed_dim']!r}, its tensors {found.projection_dim}"
        )
