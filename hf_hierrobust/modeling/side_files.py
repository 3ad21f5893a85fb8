"""What a checkpoint holds beside the stock weights: the hyperbolic head, a visual prompt, an adapter.

Stock transformers reads none of these files, so a corrupt one never harms the stock part. A ``model`` here is
a `RobustDualEncoder`, which imports this module.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..adapters.lora import adapter_layers, has_adapters, load_adapter, merged_state, save_adapter
from ..stock_files import one_line
from .hier_head import HierHead

SIDE_FILE = "hier_head.safetensors"
PROMPT_FILE = "visual_prompt.safetensors"
ADAPTER_DIR = "adapter"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
MAX_HEADER_BYTES = 1 << 20
HEAD_RANGES = {
    "log_image_scale": (-30.0, 30.0),
    "log_text_scale": (-30.0, 30.0),
    "curvature": (1e-6, 1e6),
    "kappa": (0.0, 1e8),
    "vic_radius": (0.0, 1e4),
}
UNCALIBRATED = ("kappa", "vic_radius")
"""NaN before the calibration."""
_FILE_OF = {"hier_head.": SIDE_FILE, "visual_prompt.": PROMPT_FILE}


class CorruptSideFileError(ValueError):
    """A file beside the stock weights is missing or cannot be read; the stock part is unaffected."""


class ForeignCheckpointError(ValueError):
    """The checkpoint's merged weights are not those of this base model with the checkpoint's adapter."""


def is_side_key(key: str) -> bool:
    """Whether an entry of the state dict is stored beside the stock weights."""
    return key.startswith(tuple(_FILE_OF))


def without_side_keys(load_result, model: PreTrainedModel):
    """A result of ``load_state_dict`` without what is read after the stock weights: side files and adapters.

    Merged layers of stock weights have no place in an adapted model.
    """
    adapted = tuple(f"{name}." for name in adapter_layers(model))
    for keys in (load_result.missing_keys, load_result.unexpected_keys):
        keys[:] = [key for key in keys if not (is_side_key(key) or key.startswith(adapted))]
    return load_result


def save_side_files(model: PreTrainedModel, state: dict[str, Tensor], directory: str | os.PathLike) -> None:
    """Write the head, the visual prompt and the adapter (in ``adapter/``), each whole or not at all.

    Args:
        state: the model's state dict; the adapter is read from the model.
    """
    for prefix, name in _FILE_OF.items():
        tensors = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if tensors:
            _write(tensors, Path(directory) / name)
    if has_adapters(model):
        save_adapter(model, Path(directory) / ADAPTER_DIR, _write)


def load_side_files(model: PreTrainedModel, directory: str | os.PathLike) -> None:
    """Bring a training model's head, visual prompt and adapter back from a checkpoint folder.

    Raises:
        CorruptSideFileError: one of them is missing, unreadable or of another shape.
        ForeignCheckpointError: the checkpoint was trained on top of other base weights.
    """
    directory = Path(directory)
    load_side_file(model, directory / SIDE_FILE)
    if model.visual_prompt is not None:
        load_prompt_file(model, directory / PROMPT_FILE)
    if has_adapters(model):
        path = directory / ADAPTER_DIR / ADAPTER_FILES[1]
        try:
            load_adapter(model, load_file(path))
        except (SafetensorError, RuntimeError, OSError) as error:
            raise CorruptSideFileError(
                f"{path} is corrupt ({one_line(error)}): resume from an earlier checkpoint"
            ) from error
        _check_base(model, directory / "model.safetensors")


def load_side_file(model: PreTrainedModel, path: str | os.PathLike | None) -> None:
    """Load the head's tensors into a model.

    Raises:
        CorruptSideFileError: no file, an unreadable one, wrong tensors, values that no training gives, or
            another curvature than the config's.
    """
    try:
        if path is None:
            raise FileNotFoundError("the config announces a hyperbolic head, but the file is not there")
        state = _tensors(path, model.hier_head)
        _check_head(state)
        _check_curvature(state, model.hier_head)
        model.hier_head.load_state_dict(state)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise _corrupt(model, path or SIDE_FILE, error, "hier_head=False") from error


def load_prompt_file(model: PreTrainedModel, path: str | os.PathLike | None) -> None:
    """Load the visual prompt that the config announces.

    Raises:
        CorruptSideFileError: no file, an unreadable one, or a prompt of another kind or size, or not finite.
    """
    try:
        if path is None:
            raise FileNotFoundError("the config announces a visual prompt, but the file is not there")
        state = _tensors(path, model.visual_prompt)
        for name, tensor in state.items():
            if not bool(torch.isfinite(tensor).all()):
                raise RuntimeError(f"{name} has values that are not finite")
        model.visual_prompt.load_state_dict(state)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise _corrupt(model, path or PROMPT_FILE, error, "visual_prompt=False") from error


def _corrupt(model: PreTrainedModel, path, error: Exception, option: str) -> CorruptSideFileError:
    stock = model.stock_class.__name__
    return CorruptSideFileError(
        f"{path} is corrupt ({one_line(error)}). The {stock.removesuffix('Model')} weights beside it are "
        f"unaffected: load them with {stock}.from_pretrained, or {type(model).__name__}.from_pretrained(..., "
        f"{option}), and restore the side file from another checkpoint"
    )


def _tensors(path: str | os.PathLike, module: nn.Module) -> dict[str, Tensor]:
    """The file's tensors, if it is no larger than the module's own would be."""
    own = sum(tensor.numel() * 8 for tensor in module.state_dict().values())
    size = os.path.getsize(path)
    if size > own + MAX_HEADER_BYTES:
        raise RuntimeError(f"it has {size:,} bytes, far more than its tensors need")
    state = load_file(path)
    if kinds := {tensor.dtype for tensor in state.values() if not tensor.is_floating_point()}:
        raise RuntimeError(f"it holds {min(map(str, kinds))}, not floating-point numbers")
    return state


def _check_head(state: dict[str, Tensor]) -> None:
    """Values that a calibrated head, or one before its calibration, can have."""
    for name, tensor in state.items():
        low, high = HEAD_RANGES.get(name, (-math.inf, math.inf))
        inside = ((tensor >= low) & (tensor <= high)) | (tensor.isnan() & (name in UNCALIBRATED))
        if not bool(inside.all()):
            shown = tensor.flatten()[~inside.flatten()][0]
            raise RuntimeError(f"{name}={float(shown):g} is not in [{low:g}, {high:g}]")


def _check_curvature(state: dict[str, Tensor], head: HierHead) -> None:
    """Distances use the config's number: a head of another run would be scored in the wrong geometry."""
    stored = float(state["curvature"]) if "curvature" in state else head._curvature
    if not math.isclose(stored, head._curvature, rel_tol=1e-3):
        raise RuntimeError(f"it was trained at curvature {stored:g}, the config says {head._curvature:g}")


def _check_base(model: PreTrainedModel, path: Path) -> None:
    """An adapter on other base weights than its own is silently wrong; the merged weights tell."""
    stored = load_file(path)
    for key, tensor in merged_state(model, model.state_dict()).items():
        if is_side_key(key) or key not in stored:
            continue
        if not torch.allclose(tensor.float().cpu(), stored[key].float(), rtol=1e-3, atol=1e-5):
            raise ForeignCheckpointError(
                f"{path.parent}: its adapter on this model's base weights does not give its merged weights "
                f"(first difference in {key}): resume with the model_name_or_path that the run started from"
            )


def _write(tensors: dict[str, Tensor], path: Path) -> None:
    """Write beside and rename: a run that is killed leaves no half file under the final name."""
    temporary = path.with_suffix(".tmp")
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    save_file(tensors, temporary, metadata={"format": "pt"})
    os.replace(temporary, path)
