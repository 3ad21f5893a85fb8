"""Where a checkpoint comes from: a folder or the Hub, of which model type, with which files beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from transformers import AutoConfig
from transformers.utils import cached_file

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
        ValueError: it is of another type, which is named.
    """
    path = Path(name_or_path).expanduser() / hub.get("subfolder", "")
    if (path.is_absolute() or str(name_or_path).startswith(".")) and not (path / "config.json").is_file():
        raise FileNotFoundError(
            f"model_name_or_path={str(name_or_path)!r} holds no checkpoint (no config.json there): give the "
            "folder of a saved model, or a Hub id"
        )
    try:
        model_type = AutoConfig.from_pretrained(name_or_path, **hub).model_type
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
