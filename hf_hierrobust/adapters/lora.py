"""LoRA and other peft adapters inside a `RobustDualEncoder`, which keeps its type.

peft's layers are injected into the towers, so that ``encode_image``, DDP and ``save_pretrained`` go on as
before. Base weights stay as loaded, and the original model is one `adapters_off` away.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..naming import public_name
from .fingerprints import fingerprints

if TYPE_CHECKING:
    from peft import LoraConfig, PeftConfig

TOWERS = ("vision", "text")
_LAYERS = r"encoder\.layers\.\d+\.(self_attn\.(q_proj|k_proj|v_proj|out_proj)|mlp\.(fc1|fc2))"
_PEFT_PREFIX = "base_model.model."
_NAME = "default"


def lora_config(
    groups: Sequence[str],
    *,
    r: int = 8,
    alpha: float | None = None,
    dropout: float = 0.0,
    towers: Sequence[str] | None = None,
    train_projections: bool = False,
) -> LoraConfig:
    """LoRA on attention and MLP of the towers that an objective trains.

    The projection to the shared space is no LoRA target: the vision tower's stays frozen (unless
    ``train_projections``). ``text_projection`` is trained in full where the objective trains it, as
    HierRobust does: it is small, and with a frozen text tower it is all that moves the text side. Trained
    projections are peft ``modules_to_save``: the adapter carries them and switching it off gives the
    originals back. The tangent scales of ``hier_head`` train beside the adapter and have their own file.

    Args:
        groups: the objective's parameter groups, see `trainable.GROUPS`.
        r: rank.
        alpha: scale of the update, ``alpha / r``; None is ``2 r``.
        dropout: on the adapter's input, during training.
        towers: ``"vision"`` and ``"text"``; None takes those among ``groups``.

    Raises:
        ImportError: peft is not installed.
        ValueError: rank, scale or dropout out of range, or a tower that the objective does not train.
    """
    trained = [tower for tower in TOWERS if tower in groups]
    towers = trained if towers is None else list(towers)
    if not towers or not set(towers) <= set(trained):
        raise ValueError(
            f"lora towers {towers} must be among those the objective trains: {trained or 'none of them'}"
        )
    if isinstance(r, bool) or not isinstance(r, int) or r < 1:
        raise ValueError(f"lora r={r!r} must be a whole number, at least 1")
    if alpha is not None and alpha <= 0:
        raise ValueError(f"lora alpha={alpha} must be positive; by default it is twice the rank")
    if not 0 <= dropout < 1:
        raise ValueError(f"lora dropout={dropout} must be in [0, 1)")
    projections = ["text_projection"] if "text_projection" in groups else []
    if train_projections and "vision" in towers:
        projections.append("visual_projection")
    return _peft().LoraConfig(
        r=r,
        lora_alpha=2 * r if alpha is None else alpha,
        lora_dropout=dropout,
        target_modules=rf"({'|'.join(towers)})_model\.{_LAYERS}",
        modules_to_save=projections or None,
    )


def add_lora(model: nn.Module, config: PeftConfig, seed: int = 0) -> None:
    """Inject adapters in place and freeze everything else; `set_trainable` then unfreezes by group.

    The new weights are a function of ``seed``; the global generator is left as it was.

    Args:
        config: of `lora_config`, or any peft configuration whose layers can be merged. CLIP's names of the
            projections in its ``modules_to_save`` stand for the model's own, see
            `RobustDualEncoder.projections`.

    Raises:
        ImportError: peft is not installed.
        ValueError: the model has adapters already, the configuration matches no module, or it would train
            base weights in place or start from others (PiSSA and its like); the model is then of no use.
    """
    if has_adapters(model):
        raise ValueError("the model has adapters already: merge them by saving and loading the checkpoint")
    if getattr(config, "bias", "none") != "none":
        raise ValueError(f"peft_config has bias={config.bias!r}: use 'none', base weights must not train")
    if getattr(config, "trainable_token_indices", None):
        raise ValueError("peft_config has trainable_token_indices, which cannot be merged: leave it out")
    if "hier_head" in (getattr(config, "modules_to_save", None) or ()):
        raise ValueError("peft_config saves hier_head, which has its own file: take it from modules_to_save")
    config = _with_own_names(model, config)
    before = fingerprints(dict(model.named_parameters()))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _peft().inject_adapter_in_model(config, model, adapter_name=_NAME)
    held = {
        name.replace(".base_layer.", ".").replace(".original_module.", "."): parameter
        for name, parameter in model.named_parameters()
    }
    after = fingerprints({name: held[name] for name in before})
    if changed := [name for name in before if after[name] != before[name]]:
        start = getattr(config, "init_lora_weights", None)
        raise ValueError(
            f"peft_config has init_lora_weights={start!r}, which rewrote {len(changed)} base weights such as "
            f"{changed[0]}: with the adapter off, the model would not be the original; use True or 'gaussian'"
        )


def _with_own_names(model: nn.Module, config: PeftConfig) -> PeftConfig:
    names = getattr(model, "projections", {})
    if not getattr(config, "modules_to_save", None):
        return config
    config = copy.copy(config)
    config.modules_to_save = [names.get(name, name) for name in config.modules_to_save]
    return config


def has_adapters(model: nn.Module) -> bool:
    return bool(getattr(model, "peft_config", None))


def adapter_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Module name -> peft layer, for every layer with an adapter or with a trained copy."""
    if not has_adapters(model):
        return {}
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    kinds = (BaseTunerLayer, ModulesToSaveWrapper)
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


def adapter_parameters(model: nn.Module) -> dict[str, dict[str, nn.Parameter]]:
    """Module name -> full name -> parameter of its adapter, base weights left out."""
    return {
        name: {
            f"{name}.{key}": parameter
            for key, parameter in layer.named_parameters()
            if not key.startswith(("base_layer.", "original_module."))
        }
        for name, layer in adapter_layers(model).items()
    }


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """The model as it was before `add_lora`, also after an exception inside."""
    layers = list(adapter_layers(model).values())
    # Switching peft layers sets requires_grad of their adapters, even inside a frozen attack.
    flags = [(p, p.requires_grad) for layer in layers for p in layer.parameters()]
    before = [layer.disable_adapters for layer in layers]
    try:
        for layer in layers:
            layer.enable_adapters(False)
        yield
    finally:
        for layer, disabled in zip(layers, before):
            layer.enable_adapters(not disabled)
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


@torch.no_grad()
def merged_state(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict in which every adapted layer is the plain layer it amounts to; the model is untouched.

    Merging is done in fp32 and stored in the base weight's type.
    """
    for name, layer in adapter_layers(model).items():
        plain = _merged(layer)
        state = {key: value for key, value in state.items() if not key.startswith(f"{name}.")}
        state |= {f"{name}.{key}": value for key, value in plain.state_dict().items()}
    return state


def _merged(layer: nn.Module) -> nn.Module:
    if hasattr(layer, "original_module"):
        return layer.modules_to_save[layer.active_adapters[0]]
    base = layer.get_base_layer()
    twin = copy.deepcopy(layer).float()
    twin.merge(safe_merge=True)
    return twin.get_base_layer().to(base.weight.dtype)


def adapter_facts(model: nn.Module) -> dict:
    """What ``config.hier_robust["adapter"]`` records."""
    config = model.peft_config[_NAME]
    options = {key: getattr(config, key, None) for key in ("r", "lora_alpha", "lora_dropout")}
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    return {"peft_type": kind} | {key: value for key, value in options.items() if value is not None}


def save_adapter(model: nn.Module, directory: Path, write: Callable[[dict, Path], None]) -> None:
    """Write the adapter as peft does, for `AutoPeftModel` and ``PeftModel.from_pretrained(base, directory)``.

    `AutoPeftModel` finds the base by ``base_model_name_or_path``: the base's Hub id or, if it was a folder,
    its public name only, since the file is shared. It builds the stock class, which needs nothing of ours.

    Args:
        write: stores a dict of tensors in a safetensors file.
    """
    directory.mkdir(parents=True, exist_ok=True)
    state = _peft().get_peft_model_state_dict(model, adapter_name=_NAME, save_embedding_layers=False)
    state = {_PEFT_PREFIX + key: value for key, value in state.items()}
    write(state, directory / "adapter_model.safetensors")
    config = copy.copy(model.peft_config[_NAME])
    config.inference_mode = True
    config.base_model_name_or_path = public_name(model.name_or_path) if model.name_or_path else None
    stock = getattr(model, "stock_class", type(model))
    # save_pretrained would name our class, or none.
    config.auto_mapping = {"base_model_class": stock.__name__, "parent_library": "transformers"}
    config.save_pretrained(directory)


def load_adapter(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load the tensors of an adapter file into a model with the same adapters.

    Raises:
        RuntimeError: missing, unknown or misshapen tensors.
    """
    state = {key.removeprefix(_PEFT_PREFIX): value for key, value in state.items()}
    own = _peft().get_peft_model_state_dict(model, adapter_name=_NAME, save_embedding_layers=False)
    _same_keys(own, state)
    _peft().set_peft_model_state_dict(model, state, adapter_name=_NAME)


def unwrapped_state(model: nn.Module) -> dict[str, Tensor]:
    """Weights of the model inside a `PeftModel`, its adapters left out; of any other model all weights."""
    if not hasattr(model, "get_base_model"):
        return model.state_dict()
    layers = adapter_layers(model.get_base_model())
    kept = {}
    for key, value in model.get_base_model().state_dict().items():
        layer = next((name for name in layers if key.startswith(f"{name}.")), None)
        if layer is None:
            kept[key] = value
            continue
        rest = key.removeprefix(f"{layer}.")
        for mark in ("base_layer.", "original_module."):
            if rest.startswith(mark):
                kept[f"{layer}.{rest.removeprefix(mark)}"] = value
    return kept


def adopt_adapter(model: nn.Module, peft_model: nn.Module) -> None:
    """Give a model the adapter, with its weights, of a `PeftModel` around a model of the same base.

    Raises:
        ValueError: several adapters, or one that cannot be trained here; see `add_lora`.
    """
    names = list(peft_model.peft_config)
    if len(names) != 1:
        raise ValueError(f"model has {len(names)} adapters {names}: give a PeftModel with one")
    state = _peft().get_peft_model_state_dict(peft_model, adapter_name=names[0], save_embedding_layers=False)
    add_lora(model, copy.deepcopy(peft_model.peft_config[names[0]]))
    load_adapter(model, {key: value.to(model.device) for key, value in state.items()})


def _same_keys(own: Iterable[str], stored: Iterable[str]) -> None:
    missing, unknown = sorted(set(own) - set(stored)), sorted(set(stored) - set(own))
    if missing or unknown:
        raise RuntimeError(
            f"the file lacks {len(missing)} tensors of this model's adapters {missing[:2]} and has "
            f"{len(unknown)} others {unknown[:2]}"
        )


def _peft():
    try:
        import peft
    except ImportError as error:
        raise ImportError("LoRA needs peft: pip install 'hf_hierrobust[peft]'") from error
    return peft
