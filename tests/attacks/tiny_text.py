"""A tiny masked language model and a tiny CLIP that know the same words."""

from __future__ import annotations

import torch
from transformers import BertConfig, BertForMaskedLM, BertTokenizer, CLIPModel

from hf_hierrobust.demo.tiny import build_tokenizer, tiny_clip_config
from hf_hierrobust.modeling import TextEncoder

WORDS = [
    *("this", "is", "a", "photo", "of", "picture", "image", "on", "the", "red", "green", "big", "small"),
    *("cat", "dog", "oak", "rose", "animal", "plant", "thing"),
]
PIECES = ["pri", "ma", "##m", "##rose", "##ma", "##le", "##ple", "##s", ".", ",", "-", "'", "[", "]"]
PROMPTS = [f"This is a photo of a {name}." for name in ("cat", "dog", "primrose", "maple")] + [
    "a big dog, a small cat on the photo",
    "primrose, plant",
]


def make_tiny_mlm(directory, seed: int = 0) -> str:
    """A saved one-layer BERT with word pieces; its predictions are far from uniform."""
    vocab = {t: i for i, t in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *PIECES])}
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocab),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=48,
    )
    model = BertForMaskedLM(config)
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight.normal_()
    model.save_pretrained(directory)
    BertTokenizer(vocab=vocab).save_pretrained(directory)
    return str(directory)


def tiny_encoder(seed: int = 0, **kwargs) -> TextEncoder:
    """The text side of a tiny CLIP, with weights so large that every word matters."""
    tokenizer = build_tokenizer([*WORDS, "hound frump beach [UNK]"], max_length=32)
    torch.manual_seed(seed)
    config = tiny_clip_config(tokenizer, vision_width=32, vision_layers=1, text_width=32, projection_dim=32)
    model = CLIPModel(config)
    with torch.no_grad():
        model.text_model.embeddings.token_embedding.weight.mul_(20)
    return TextEncoder(model, tokenizer, **kwargs)
