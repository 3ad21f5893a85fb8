"""The tiny CLIP, its classes and its images; a module because ``conftest`` names one file per folder."""

from __future__ import annotations

import math
from pathlib import Path

import datasets
import numpy as np
import torch
from PIL import Image

WORDS = ["cat", "dog", "oak", "rose", "animal", "plant", "thing", "this is a photo of a", "picture"]
CLASSES = ("cat", "dog", "oak", "rose")
PATHS = {"cat": ["animal"], "dog": ["animal"], "oak": ["plant"], "rose": ["plant"]}


def make_tiny_clip(directory: Path, seed: int = 0, context: int = 16) -> str:
    """A randomly initialised two-layer CLIP with tokenizer and processor, as stock transformers saves it."""
    from transformers import CLIPModel

    from hf_hierrobust.demo.tiny import build_processor, build_tokenizer, tiny_clip_config

    tokenizer = build_tokenizer(WORDS, max_length=context)
    torch.manual_seed(seed)
    config = tiny_clip_config(tokenizer, vision_width=32, vision_layers=2, text_width=32, projection_dim=32)
    CLIPModel(config).save_pretrained(directory)
    build_processor(32, tokenizer).save_pretrained(directory)
    return str(directory)


def make_tiny_siglip(directory: Path, seed: int = 0) -> str:
    """A two-layer SigLIP of random weights with tokenizer and processor, as stock transformers saves it."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import (
        PreTrainedTokenizerFast,
        SiglipConfig,
        SiglipImageProcessor,
        SiglipModel,
        SiglipProcessor,
    )

    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.normalizer, backend.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=200,
        special_tokens=["<pad>", "</s>", "<unk>"],
        initial_alphabet=sorted("abcdefghijklmnopqrstuvwxyz▁"),
        show_progress=False,
    )
    backend.train_from_iterator(WORDS, trainer)
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    # As in Google's checkpoints: the end token is the padding, no mask, and a context of 64.
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="</s>",
        pad_token="</s>",
        unk_token="<unk>",
        model_max_length=64,
        model_input_names=["input_ids"],
    )
    tower = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 64, "pad_token_id": 1, "eos_token_id": 1}
    torch.manual_seed(seed)
    model = SiglipModel(
        SiglipConfig(
            text_config=tower | text | {"bos_token_id": 0},
            vision_config=tower | {"image_size": 32, "patch_size": 8},
        )
    )
    with torch.no_grad():  # the paper's initial values; transformers starts both from 0
        model.logit_scale.fill_(math.log(10))
        model.logit_bias.fill_(-10)
    model.save_pretrained(directory)
    image_processor = SiglipImageProcessor(size={"height": 32, "width": 32})
    SiglipProcessor(image_processor, tokenizer).save_pretrained(directory)
    return str(directory)


def make_images(count: int, seed: int = 0, size: int = 32) -> datasets.Dataset:
    """Noise images whose mean colour tells the class, interleaved by class."""
    rng = np.random.default_rng(seed)
    colours = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [180, 180, 60]])
    labels = [i % 4 for i in range(count)]
    images = [
        Image.fromarray(np.clip(colours[y] + rng.normal(0, 40, (size, size, 3)), 0, 255).astype("uint8"))
        for y in labels
    ]
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))}
    )
    return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
