"""What a checkpoint borrows from the one it was trained from: tokenizer, image processor, text tower."""

from __future__ import annotations

from collections.abc import Mapping

from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel, PreTrainedTokenizerBase

from ..modeling.sources import companion_file, dual_encoder_type


def check_clip(source, argument: str) -> None:
    try:
        kind = dual_encoder_type(source)
    except FileNotFoundError as error:
        raise FileNotFoundError(str(error).replace("model_name_or_path", argument)) from error
    except ValueError as error:
        raise ValueError(str(error).replace("model_name_or_path", argument)) from error
    if kind != "clip":
        raise ValueError(f"{argument}={str(source)!r} is a {kind!r} checkpoint: CLIP alone is converted")


def whole_base(base) -> CLIPModel | None:
    """The base's weights, if it has any: a folder may hold a tokenizer alone."""
    if base is None or companion_file(base, "config.json") is None:
        return None
    check_clip(base, "base")
    return CLIPModel.from_pretrained(base, dtype="auto")


def tokenizer_of(source, name: str) -> PreTrainedTokenizerBase:
    if source is None:
        raise ValueError(
            f"{name} has no tokenizer: give base, the checkpoint or folder whose tokenizer it was trained "
            "with, such as openai/clip-vit-base-patch32"
        )
    try:
        return AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        why = str(error).splitlines()[0].rstrip(".")
        raise FileNotFoundError(f"base={str(source)!r} gives no tokenizer ({why})") from error


def image_processor_of(source):
    """None where the source holds a tokenizer or weights alone."""
    files = ("preprocessor_config.json", "processor_config.json")
    if not any(companion_file(source, name) for name in files):
        return None
    return CLIPImageProcessor.from_pretrained(source)


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, size: int, name: str) -> None:
    if len(tokenizer) != size:
        raise ValueError(
            f"{name} has a vocabulary of {size} tokens, the tokenizer one of {len(tokenizer)}: give as base "
            "one with the tokenizer that the weights were trained with"
        )


def check_end(end: int, vocabulary: int, text_cfg: Mapping, name: str) -> None:
    """open_clip pools a text at its highest token, or where its config says: so must the tokenizer.

    Raises:
        ValueError: it does not.
    """
    pooled = text_cfg.get("eos_id", 2) if text_cfg.get("pool_type") == "eos" else vocabulary - 1
    if end != pooled:
        raise ValueError(
            f"{name} pools a text at its token {pooled}, but the tokenizer ends texts with {end}: give as "
            "base one with the tokenizer that the weights were trained with"
        )
