"""Weights files of others: tensors only, out of whatever wrapping a training script saved them in."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import logging

logger = logging.get_logger(__name__)

SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_WRAPPERS = ("vision_encoder_state_dict", "state_dict", "model_state_dict", "model")
"""Where training scripts keep the weights; the first one that holds a tower is taken."""
_PREFIXES = ("module.", "model.", "_orig_mod.", "clip_model.", "clip.", "vision_encoder.", "image_encoder.")
_NO_WEIGHTS = {"attn_mask", "text.attn_mask", "input_resolution", "context_length", "vocab_size"}
"""Buffers and constants that some versions of CLIP and open_clip store beside the weights."""
_UNKNOWN = {
    r"(vision_model|text_model)\.": "transformers' names: give the folder with its config.json",
    r"(visual\.)?trunk\.": "an image tower of timm",
    r"(visual\.)?layer1\.": "a ResNet",
    r"(text\.)?transformer\.(embeddings|encoder)\.": "a text tower of transformers",
    r"text_decoder\.": "CoCa",
    r"(visual\.)?attn_pool\.": "attentional pooling",
    r".*\.ls_[12]\.": "LayerScale",
    r"logit_bias": "a bias of the logits, as SigLIP has",
    r"(text\.)?cls_emb": "a class token in the text tower",
    r"(text\.)?text_projection\.": "a text projection that is a layer",
}


class WeightsError(ValueError):
    """A weights file is damaged, holds more than tensors, or a network that CLIP's classes cannot hold."""


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file under open_clip's names, ``visual.`` before those of the image tower.

    A file of the image tower alone, whose names lack ``visual.``, gives names with it. No code of a pickle is
    run: ``weights_only=True``.

    Raises:
        FileNotFoundError: no such file.
        WeightsError: of another kind, damaged, with code in it, without a tower, of another architecture, or
            with numbers that are not finite; one line says which.
    """
    path = Path(path)
    loaded = _load(path)
    state = _named(_unwrapped(loaded, path), path)
    for key, tensor in state.items():
        if not tensor.is_floating_point():
            raise WeightsError(f"{path}: {key} is of {tensor.dtype}, not of floating-point numbers")
        if not bool(tensor.isfinite().all()):
            raise WeightsError(f"{path}: {key} holds numbers that are not finite: the weights are broken")
    return _one_dtype(state)


def _load(path: Path) -> object:
    if not path.is_file():
        raise FileNotFoundError(f"{str(path)!r} is no file of weights")
    if path.suffix not in SUFFIXES:
        raise WeightsError(f"{path} is no file of weights: they end in {', '.join(SUFFIXES)}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|global|class) ([\w.]+\.[\w.]+)", str(error))
        what = f"asks to run {found[1]}" if found else "is no plain state dict"
        raise WeightsError(
            f"{path} {what} and is not loaded: where you trust it, save its tensors alone with "
            "torch.save(model.state_dict(), …) or as safetensors"
        ) from None
    except (
        SafetensorError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        LookupError,
        AttributeError,
    ) as error:
        if "TorchScript" in str(error):
            raise WeightsError(
                f"{path} is a TorchScript archive, which holds code: save the state dict of the model instead"
            ) from None
        raise WeightsError(f"{path} cannot be read, it may have been cut off: {_first(error)}") from None


def _unwrapped(loaded: object, path: Path) -> dict[str, Tensor]:
    if not isinstance(loaded, Mapping):
        raise WeightsError(f"{path} holds a {type(loaded).__name__}, not a state dict")
    if not any(isinstance(loaded.get(name), Mapping) for name in _WRAPPERS):
        return _tensors(loaded)
    found = {name: _tensors(loaded[name]) for name in _WRAPPERS if isinstance(loaded.get(name), Mapping)}
    chosen = next((name for name, state in found.items() if _prefix(state) is not None), next(iter(found)))
    for name, state in found.items():
        if name != chosen and state:
            logger.warning(
                f"{path}: {chosen!r} is converted, {name!r} beside it ({len(state)} tensors, first "
                f"{next(iter(state))!r}) is not: a visual prompt there would be a part of the defence"
            )
    return found[chosen]


def _tensors(state: Mapping) -> dict[str, Tensor]:
    """The tensors of a mapping without the prefixes that all their names share."""
    tensors = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    while tensors and (common := [p for p in _PREFIXES if all(key.startswith(p) for key in tensors)]):
        tensors = {key.removeprefix(common[0]): value for key, value in tensors.items()}
    return tensors


def _prefix(state: Mapping[str, Tensor]) -> str | None:
    """What stands before the names of the image tower; None if there is none."""
    return next((prefix for prefix in ("visual.", "") if f"{prefix}conv1.weight" in state), None)


def _named(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    for key in state:
        for pattern, what in _UNKNOWN.items():
            if re.match(pattern, key):
                raise WeightsError(
                    f"{path} holds {key!r}, {what}: a ViT of CLIP is wanted, as open_clip names it"
                )
    if (prefix := _prefix(state)) is None:
        first = f", its first tensor is {next(iter(state))!r}" if state else " and no tensor"
        raise WeightsError(f"{path} holds no image tower of CLIP (no conv1.weight){first}")
    kept = {key: value for key, value in state.items() if key not in _NO_WEIGHTS}
    if prefix == "":
        return {f"visual.{key}": value for key, value in kept.items()}
    return {key.removeprefix("text."): value for key, value in kept.items()}


def _one_dtype(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """All in one dtype: of several, as OpenAI's halves beside full norms, float32, which holds them."""
    if len({tensor.dtype for tensor in state.values()}) > 1:
        return {key: tensor.float() for key, tensor in state.items()}
    return state


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
