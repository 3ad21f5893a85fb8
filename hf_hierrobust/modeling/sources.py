"""Where a checkpoint comes from: a folder or the Hub, of which model type, with which files beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoProcessor, ProcessorMixin
from transformers.utils import cached_file

from ..stock_files import INDEX, SETTINGS, UnsafeCheckpointError, check_settings, one_line, shard_names

MODEL_TYPES = ("clip", "siglip")
_HUB_OPTIONS = ("revision", "token", "cache_dir", "subfolder", "local_files_only", "force_download")


def hub_options(kwargs: Mapping) -> dict:
    """The arguments of a ``from_pretrained`` call that say where files come from."""
    return {name: kwargs[name] for name in _HUB_OPTIONS if name in kwargs}


def companion_file(name_or_path, name: str, **hub) -> str | None:
    """Local path of a file of the checkpoint, None where there is none."""
    return cached_file(
        name_or_path,
        name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        **hub,
    )


def dual_encoder_type(name_or_path, **hub) -> str:
    """The checkpoint's model type, one of `MODEL_TYPES`.

    Raises:
        FileNotFoundError: a local path without a checkpoint, or an id that the Hub does not give.
        ValueError: it is of another type, which is named; or its config asks for code, see `check_settings`.
    """
    path = Path(name_or_path).expanduser() / hub.get("subfolder", "")
    if (path.is_absolute() or str(name_or_path).startswith(".")) and not (path / "config.json").is_file():
        raise FileNotFoundError(
            f"model_name_or_path={str(name_or_path)!r} holds no checkpoint (no config.json there): give the "
            "folder of a saved model, or a Hub id"
        )
    try:
        config = companion_file(name_or_path, "config.json", **hub)
        if config is None:
            model_type = AutoConfig.from_pretrained(name_or_path, trust_remote_code=False, **hub).model_type
        else:
            model_type = check_settings(config).get("model_type")
    except OSError as error:  # several sentences about the Hub that name no argument
        why = str(error).splitlines()[0].rstrip(".")
        raise FileNotFoundError(
            f"model_name_or_path={str(name_or_path)!r} is no folder with a checkpoint, and not to be had "
            f"from the Hub ({why}): give the folder of a saved model, or the id of one that can be reached"
        ) from error
    if model_type not in MODEL_TYPES:
        raise ValueError(
            f"model_name_or_path={str(name_or_path)!r} is a {model_type!r} checkpoint, not a dual encoder of "
            "images and text that can be trained here: use a CLIP or a fixed-resolution SigLIP checkpoint, "
            "such as openai/clip-vit-base-patch32 or google/siglip-base-patch16-224"
        )
    return model_type


def check_weights(name_or_path, **hub) -> None:
    """Refuse a repository whose weights are elsewhere, before transformers follows it there.

    Raises:
        UnsafeCheckpointError: an index that names other files than parts beside it, or an adapter at the
            root, which transformers would put on top of the weights, or on those of another repository.
    """
    if companion_file(name_or_path, "adapter_config.json", **hub) is not None:
        raise UnsafeCheckpointError(
            f"{str(name_or_path)!r} has adapter_config.json beside its config.json, and transformers would "
            "put the adapter on top of merged weights: merge it into its base, or move it to the folder "
            "'adapter/'"
        )
    if (index := companion_file(name_or_path, INDEX, **hub)) is not None:
        shard_names(index)


def refuse_code(kwargs: dict) -> None:
    """Refuse the arguments of ``from_pretrained`` that run what a checkpoint brings along.

    Raises:
        ValueError: one of them is set.
    """
    if kwargs.pop("trust_remote_code", None) or kwargs.get("weights_only") is False:
        raise ValueError(
            "trust_remote_code=True and weights_only=False would run code of the checkpoint, which is never "
            "done here: leave them out"
        )


@contextmanager
def tensors_only(name_or_path) -> Iterator[None]:
    """Say in one line that weights being loaded are no tensors, or more than these.

    Raises:
        UnsafeCheckpointError: in place of the errors of safetensors, of torch's restricted unpickler, and of
            transformers on tensors of other shapes than the config's and on settings of another type.
    """
    try:
        yield
    except StrictDataclassError as error:
        raise UnsafeCheckpointError(
            f"config.json of {str(name_or_path)!r} is no config: {one_line(error)[:300]}"
        ) from error
    except (SafetensorError, UnpicklingError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "mismatch" not in str(error):
            raise
        raise UnsafeCheckpointError(
            f"the weights of {str(name_or_path)!r} are not what their name says, or hold more than tensors: "
            f"{one_line(error)[:300]}"
        ) from error


def check_complete(name_or_path, missing: Sequence[str]) -> None:
    """Refuse weights without some of the model's tensors, which would be random.

    Raises:
        UnsafeCheckpointError: names one of them.
    """
    if missing:
        raise UnsafeCheckpointError(
            f"the weights of {str(name_or_path)!r} lack {len(missing)} of the model's tensors, such as "
            f"{min(missing)}, which would be random: take a complete checkpoint"
        )


def load_processor(name_or_path, **hub) -> ProcessorMixin:
    """The processor of a checkpoint, of transformers' own classes only.

    Raises:
        UnsafeCheckpointError: its files name code of the repository.
        ValueError: there is none, or one that cannot be read.
    """
    for name in SETTINGS[1:]:
        if (path := companion_file(name_or_path, name, **hub)) is not None:
            check_settings(path)
    try:
        processor = AutoProcessor.from_pretrained(name_or_path, trust_remote_code=False, **hub)
        _check_normalisation(getattr(processor, "image_processor", None))
    except OSError:
        raise
    except Exception as error:  # tokenizers raises plain Exception
        raise ValueError(
            f"the processor of {str(name_or_path)!r} cannot be loaded: {one_line(error)}"
        ) from error
    return processor


def _check_normalisation(image_processor) -> None:
    for name, least in (("image_mean", -math.inf), ("image_std", 1e-6)):
        value = getattr(image_processor, name, None)
        numbers = [value] * 3 if isinstance(value, (int, float)) else value
        if numbers is not None and not (len(numbers) == 3 and all(least < x < math.inf for x in numbers)):
            raise ValueError(f"{name}={value} must be three finite numbers, above 0 where it divides")
