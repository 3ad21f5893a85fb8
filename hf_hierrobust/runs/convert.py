"""open_clip's checkpoints to stock `CLIPModel` folders, and these to open_clip's form."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPModel, CLIPProcessor, PreTrainedTokenizerBase

from ..files import whole_folder
from ..modeling.open_clip import (
    CONFIG_FILE,
    architecture_of,
    from_open_clip,
    model_cfg,
    preprocessing_from,
    preprocessing_of,
    read_config_file,
    read_weights,
    to_open_clip,
)
from ..modeling.side_files import PROMPT_FILE
from ..modeling.sources import companion_file
from ..naming import public_name
from ..progress import say
from .lent import check_clip, check_end, check_vocabulary, image_processor_of, tokenizer_of, whole_base

WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
"""The weights of a repository of open_clip, best first."""


@dataclass(frozen=True)
class Converted:
    """What a conversion wrote: the folder, and in words what it holds."""

    folder: Path
    facts: dict[str, str | int]


def convert(
    source: str | os.PathLike,
    output_dir: str | os.PathLike,
    *,
    to: Literal["transformers", "open_clip"] = "transformers",
    base: str | os.PathLike | None = None,
    activation: Literal["gelu", "quick_gelu"] | None = None,
    overwrite: bool = False,
) -> Converted:
    """Write a checkpoint in the other library's form; the numbers of the weights stay as they are.

    Args:
        source: of open_clip: a folder or Hub id with ``open_clip_config.json``, or a file of weights
            (safetensors, or ``.bin`` and ``.pt`` without code in them), of both towers or of the image tower
            alone, as FARE, TeCoA and Sim-CLIP are published. Of transformers: a folder or Hub id.
        output_dir: the folder to write; with ``overwrite`` it may hold an earlier checkpoint.
        base: folder or Hub id that lends what ``source`` lacks: tokenizer and normalisation; activation; the
            text tower of an image tower, which takes a whole CLIP.
        activation: of both towers, where no config says it, or says it wrong.

    Raises:
        WeightsError: the weights cannot be read, hold code, or are of another architecture.
        ValueError: ``source`` and ``base`` do not fit, or one of them does not hold what is needed.
        FileNotFoundError: one of them is not there.
        FileExistsError: ``output_dir`` holds a checkpoint.
    """
    if to not in ("transformers", "open_clip"):
        raise ValueError(f"to={to!r} must be 'transformers' or 'open_clip'")
    if activation not in (None, "gelu", "quick_gelu"):
        raise ValueError(f"activation={activation!r} must be 'gelu' or 'quick_gelu'")
    target = Path(output_dir).expanduser()
    held = [name for name in ("config.json", CONFIG_FILE) if (target / name).exists()]
    if held and not overwrite:
        raise FileExistsError(
            f"output_dir={str(output_dir)!r} already holds {held[0]}: overwrite it, or choose another folder"
        )
    weights, config_file = _open_clip_files(source)
    if weights is not None:
        if to == "open_clip":
            raise ValueError(f"source={str(source)!r} is open_clip's already: to='transformers' converts it")
        found = _imported(weights, config_file, source, base, activation)
    else:
        if activation is not None:
            raise ValueError(f"activation={activation!r} has no effect: the config of {source} says it")
        found = _loaded(source, base, export=to == "open_clip")
    with whole_folder(target, last=("config.json", CONFIG_FILE)) as folder:
        (_write_open_clip if to == "open_clip" else _write_transformers)(found, folder)
    vision = found.model.config.vision_config
    facts = {
        "form": to,
        "image size": vision.image_size,
        "patch size": vision.patch_size,
        "activation": vision.hidden_act,
        "parameters": sum(p.numel() for p in found.model.parameters()),
    }
    return Converted(target, facts)


@dataclass(frozen=True)
class _Checkpoint:
    model: CLIPModel
    image_processor: CLIPImageProcessor
    tokenizer: PreTrainedTokenizerBase


def _open_clip_files(source: str | os.PathLike) -> tuple[Path | None, Path | None]:
    """Weights and config of a source of open_clip; of one of transformers, (None, None)."""
    path = Path(source).expanduser()
    if path.is_file():
        beside = path.with_name(CONFIG_FILE)
        return path, beside if path.name in WEIGHTS and beside.is_file() else None
    if path.is_dir():
        held = [path / name for name in WEIGHTS if (path / name).is_file()]
        config = path / CONFIG_FILE if (path / CONFIG_FILE).is_file() else None
        if config is not None and not held:
            raise FileNotFoundError(
                f"source={str(source)!r} holds {CONFIG_FILE}, but none of {', '.join(WEIGHTS)}"
            )
        return (held[0], config) if held else (None, None)
    if (
        path.suffix in (".pt", ".bin", ".pth", ".safetensors")
        or path.is_absolute()
        or str(source)[:1] in ".~"
    ):
        raise FileNotFoundError(f"source={str(source)!r} is not there: give a file, a folder or a Hub id")
    config = companion_file(source, CONFIG_FILE)
    held = next((found for name in WEIGHTS if config and (found := companion_file(source, name))), None)
    return (Path(held), Path(config)) if held else (None, None)


def _imported(weights: Path, config_file: Path | None, source, base, activation: str | None) -> _Checkpoint:
    """open_clip's weights with what their config and the base say of them."""
    cfg, preprocess = read_config_file(config_file) if config_file else ({}, {})
    name = public_name(str(source))
    state = read_weights(weights)
    found = architecture_of(state, cfg, name)
    own = config_file.parent if config_file and (config_file.parent / "tokenizer.json").is_file() else None
    if base is not None and own and found.text and preprocess and (activation or config_file):
        raise ValueError(f"base={str(base)!r} has no effect: {name} lacks nothing that it could lend")
    tokenizer = tokenizer_of(own or base, name)
    lender = whole_base(base)
    if activation is None and config_file is not None:
        activation = "quick_gelu" if cfg.get("quick_gelu") else "gelu"
    if activation is None and lender is not None:
        activation = lender.config.vision_config.hidden_act
    if activation is None:
        raise ValueError(
            f"{name} does not say its activation: give activation, quick_gelu for weights that started from "
            "OpenAI's and gelu for those from LAION's, or as base the whole CLIP that they started from"
        )
    state = from_open_clip(state)
    if found.text:
        check_vocabulary(tokenizer, found.text["vocab_size"], name)
        text = {f"{key}_token_id": getattr(tokenizer, f"{key}_token_id") for key in ("bos", "eos", "pad")}
        check_end(text["eos_token_id"], found.text["vocab_size"], cfg.get("text_cfg", {}), name)
    else:
        text, state = _with_text(found.projection_dim, state, lender, name)
        check_vocabulary(tokenizer, text["vocab_size"], name)
    config = found.config(activation, text)
    config.dtype = next(iter(state.values())).dtype
    with torch.device("meta"):
        model = CLIPModel(config)
    model.load_state_dict(state, strict=True, assign=True)
    if not preprocess and base is not None and (lent := image_processor_of(base)) is not None:
        preprocess = {"mean": list(lent.image_mean), "std": list(lent.image_std)}
    preprocessing = preprocessing_of(preprocess, config.vision_config.image_size, name)
    return _Checkpoint(model, preprocessing.image_processor(), tokenizer)


def _with_text(width: int, state: dict[str, Tensor], lender: CLIPModel | None, name: str):
    """The text tower's config, and all tensors: those of the base but its image tower's."""
    if lender is None:
        raise ValueError(
            f"{name} is an image tower alone: give as base the whole CLIP whose text tower it was trained "
            "beside, such as openai/clip-vit-large-patch14"
        )
    if lender.config.projection_dim != width:
        raise ValueError(
            f"{name} projects to {width} dimensions, its base to {lender.config.projection_dim}: give the "
            "base that it was trained from"
        )
    lent = {k: v for k, v in lender.state_dict().items() if not k.startswith(("vision_model.", "visual_"))}
    together = lent | state
    if len({tensor.dtype for tensor in together.values()}) > 1:
        together = {key: tensor.float() for key, tensor in together.items()}
    return lender.config.text_config.to_dict(), together


def _loaded(source, base, export: bool) -> _Checkpoint:
    """A checkpoint of transformers, with its base's processor where it has none."""
    check_clip(source, "source")
    model = CLIPModel.from_pretrained(source, dtype="auto")
    if export and PROMPT_FILE.split(".")[0] in (getattr(model.config, "hier_robust", None) or {}):
        raise ValueError(
            f"source={str(source)!r} is defended by a visual prompt, which open_clip cannot hold"
        )
    own = image_processor_of(source)
    if own is not None and not export:
        raise ValueError(
            f"source={str(source)!r} is a whole checkpoint of transformers: there is nothing to do"
        )
    name = public_name(str(source))
    images = own or (base is not None and image_processor_of(base)) or None
    if images is None:
        raise ValueError(f"{name} has no processor: give as base the checkpoint that it started from")
    tokens = companion_file(source, "tokenizer_config.json")
    if base is not None and own is not None and tokens:
        raise ValueError(f"base={str(base)!r} has no effect: {name} has its own processor and tokenizer")
    tokenizer = tokenizer_of(source if tokens else base, name)
    size, wanted = preprocessing_from(images).size, model.config.vision_config.image_size
    if size != wanted:
        raise ValueError(f"{name} takes images of {wanted} px, the processor makes them {size} px")
    check_vocabulary(tokenizer, model.config.text_config.vocab_size, name)
    return _Checkpoint(model, images, tokenizer)


def _write_transformers(found: _Checkpoint, folder: Path) -> None:
    found.model.save_pretrained(folder)
    found.image_processor.save_pretrained(folder)  # what transformers before version 5 reads
    CLIPProcessor(image_processor=found.image_processor, tokenizer=found.tokenizer).save_pretrained(folder)


def _write_open_clip(found: _Checkpoint, folder: Path) -> None:
    cfg = {
        "model_cfg": model_cfg(found.model.config),
        "preprocess_cfg": preprocessing_from(found.image_processor).cfg(),
    }
    if len(found.tokenizer) != 49408:
        say(f"open_clip's own tokenizer has 49,408 tokens, this one {len(found.tokenizer):,}: use this one")
    state = {key: value.contiguous() for key, value in to_open_clip(found.model.state_dict()).items()}
    save_file(state, folder / WEIGHTS[0], metadata={"format": "pt"})
    (folder / CONFIG_FILE).write_text(json.dumps(cfg, indent=2) + "\n", encoding="utf-8")
    found.tokenizer.save_pretrained(folder)
