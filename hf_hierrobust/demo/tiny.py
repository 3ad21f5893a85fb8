"""The parts of a tiny CLIP, made offline of stock ``transformers`` classes."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPConfig, CLIPImageProcessor, CLIPProcessor, CLIPTokenizer

IMAGE_MEAN = IMAGE_STD = (0.5, 0.5, 0.5)


def build_tokenizer(corpus: Iterable[str], max_length: int = 16, max_merges: int = 500) -> CLIPTokenizer:
    """Train a CLIP tokenizer on ``corpus``; it covers every byte, so no text maps to the unknown token.

    The same corpus gives the same ids in every process.

    CLIP's unknown token is its end token, and the text tower pools at the first end token: with a tokenizer
    that lacks a byte, everything after that byte would be ignored without a warning.

    Raises:
        ValueError: ``max_length`` leaves no room for a word between start and end, or the corpus is empty.
    """
    corpus = list(corpus)
    if not corpus:
        raise ValueError("corpus is empty; give at least one sentence to learn merges from")
    if max_length < 3:
        raise ValueError(f"max_length={max_length} is too small; start, one token and end need at least 3")
    backend = CLIPTokenizer().backend_tokenizer
    bpe = Tokenizer(
        models.BPE(unk_token="<|endoftext|>", continuing_subword_prefix="", end_of_word_suffix="</w>")
    )
    bpe.normalizer, bpe.pre_tokenizer = backend.normalizer, backend.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    # Word-final bytes that are not reserved get their ids in the order of a hash map, and ties between merges
    # are broken by id: every call would learn another vocabulary.
    reserved = alphabet + [byte + "</w>" for byte in alphabet]
    trainer = trainers.BpeTrainer(
        vocab_size=len(reserved) + max_merges,
        min_frequency=1,
        special_tokens=reserved,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    learned = json.loads(bpe.to_str())["model"]
    vocab = learned["vocab"]
    # Last, so that the end token has the highest id, as in OpenAI's vocabulary.
    for token in ("<|startoftext|>", "<|endoftext|>"):
        vocab[token] = len(vocab)
    return CLIPTokenizer(
        vocab=vocab, merges=[tuple(pair) for pair in learned["merges"]], model_max_length=max_length
    )


def build_processor(size: int, tokenizer: CLIPTokenizer) -> CLIPProcessor:
    """Processor for ``size`` x ``size`` images: resize, centre crop, rescale, map [0, 1] to [-1, 1]."""
    image_processor = CLIPImageProcessor(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        image_mean=list(IMAGE_MEAN),
        image_std=list(IMAGE_STD),
    )
    return CLIPProcessor(image_processor=image_processor, tokenizer=tokenizer)


def tiny_clip_config(
    tokenizer: CLIPTokenizer,
    *,
    image_size: int = 32,
    patch_size: int = 8,
    vision_width: int = 128,
    vision_layers: int = 4,
    text_width: int = 64,
    text_layers: int = 2,
    projection_dim: int = 64,
) -> CLIPConfig:
    """Config of a CLIP with two small towers, its special token ids taken from ``tokenizer``.

    The ids matter: the text tower pools at ``eos_token_id``, whose default lies outside a small vocabulary;
    every text would then get the same embedding.
    """
    vision = {
        "image_size": image_size,
        "patch_size": patch_size,
        "hidden_size": vision_width,
        "intermediate_size": 4 * vision_width,
        "num_hidden_layers": vision_layers,
        "num_attention_heads": max(1, vision_width // 32),
        "projection_dim": projection_dim,
    }
    text = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": tokenizer.model_max_length,
        "hidden_size": text_width,
        "intermediate_size": 4 * text_width,
        "num_hidden_layers": text_layers,
        "num_attention_heads": max(1, text_width // 32),
        "projection_dim": projection_dim,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=projection_dim)
