"""Tokenizers that say nothing, and prompts that a text encoder cannot tell apart."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tiny_runs import make_trainer
from transformers import AutoProcessor, CLIPTokenizer

from hf_hierrobust.modeling import TextEncoder, TokenizerError, encode_prompts, load_robust_model
from hf_hierrobust.modeling.text_checks import check_distinct

PROMPTS = ["a photo of a cat", "a photo of a dog"]


@pytest.fixture
def without_files(tiny_clip_dir, tmp_path) -> str:
    """The tiny checkpoint as some are published: without its tokenizer, which loads all the same."""
    folder = tmp_path / "bare"
    shutil.copytree(tiny_clip_dir, folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        Path(folder, name).unlink()
    return str(folder)


def test_kind04_a_checkpoint_without_tokenizer_files_is_refused_everywhere(without_files, tmp_path):
    model, tokenizer = (
        load_robust_model(without_files),
        AutoProcessor.from_pretrained(without_files).tokenizer,
    )
    for encode in (
        lambda: encode_prompts(model, tokenizer, PROMPTS),
        lambda: TextEncoder(model, tokenizer)(PROMPTS),
        lambda: TextEncoder(model, tokenizer).tokens(PROMPTS),
        lambda: make_trainer(without_files, tmp_path, objective="tecoa"),
        lambda: make_trainer(without_files, tmp_path, objective="mmcoa"),
    ):
        with pytest.raises(TokenizerError, match="files are missing or another model's"):
            encode()


def test_kind04_an_end_token_that_is_never_written(tiny_clip_dir):
    model, tokenizer = (
        load_robust_model(tiny_clip_dir),
        AutoProcessor.from_pretrained(tiny_clip_dir).tokenizer,
    )
    end = model.config.text_config.eos_token_id
    for wrong in (end - 5, 2):  # 2: old checkpoints, which pool at the highest id
        model.config.text_config.eos_token_id = wrong
        if wrong == 2:
            encode_prompts(model, tokenizer, PROMPTS)  # the tiny tokenizer's end token is its highest
            tokenizer.add_tokens("photo")
        with pytest.raises(TokenizerError, match=r"does not write (the|an) end token|has 548 tokens"):
            encode_prompts(model, tokenizer, PROMPTS)


def test_kind04_a_foreign_tokenizer_is_refused_before_an_index_error(tiny_siglip_dir, shared_dir):
    model = load_robust_model(tiny_siglip_dir)
    foreign = CLIPTokenizer.from_pretrained(shared_dir / "models" / "clip-tokenizer")
    with pytest.raises(TokenizerError, match="but the text encoder has 73 tokens"):
        encode_prompts(model, foreign, PROMPTS)


def test_kind04_prompts_that_are_the_same_tokens(tiny_clip_dir):
    model, tokenizer = (
        load_robust_model(tiny_clip_dir),
        AutoProcessor.from_pretrained(tiny_clip_dir).tokenizer,
    )
    with pytest.raises(TokenizerError, match=r"'a Cat' and 'a cat' are the same tokens.*rename one"):
        encode_prompts(model, tokenizer, ["a Cat", "a dog", "a cat"])
    with pytest.raises(TokenizerError, match="'a Cat' and 'a cat'"):
        encode_prompts(model, tokenizer, [["a Cat", "the Cat"], ["a cat", "the cat"]])
    # Real twins are one prompt; captions may differ in nothing that counts.
    states = encode_prompts(model, tokenizer, ["a cat", "a dog", "a cat"])
    assert torch.equal(states[0], states[2])
    encode_prompts(model, tokenizer, ["a Cat", "a cat"], distinct=False)


def test_kind04_a_text_tower_that_gives_all_prompts_one_state(tiny_siglip_dir):
    model, tokenizer = (
        load_robust_model(tiny_siglip_dir),
        AutoProcessor.from_pretrained(tiny_siglip_dir).tokenizer,
    )
    with torch.no_grad():
        model.text_model.embeddings.token_embedding.weight.zero_()
    with pytest.raises(TokenizerError, match="the same state"):
        encode_prompts(model, tokenizer, PROMPTS)


def test_equal_states_are_found_among_many():
    states = torch.randn(3000, 16, generator=torch.Generator().manual_seed(0))
    names = [f"class {i}" for i in range(3000)]
    check_distinct(names, states)
    states[2711] = states[12] * (1 + 1e-8)
    with pytest.raises(TokenizerError, match=r"'class (12|2711)' and 'class (12|2711)'"):
        check_distinct(names, states)
    check_distinct([*names[:2711], "class 12", *names[2712:]], states)
