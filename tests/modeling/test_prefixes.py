"""Texts packed by their beginnings: a tree walked by hand, and the features of stock CLIP in float64."""

from __future__ import annotations

import random

import pytest
import torch
from transformers import AutoTokenizer, CLIPModel

from hf_hierrobust.modeling import TextEncoder
from hf_hierrobust.modeling.prefixes import pack_prefixes


def random_texts(count: int, longest: int, tokens: int = 3, seed: int = 0) -> list[list[int]]:
    """Distinct texts of few different tokens, so that most share a beginning and some are one of another."""
    rng, found = random.Random(seed), {}
    while len(found) < count:
        found[tuple(rng.randrange(1, 1 + tokens) for _ in range(rng.randint(1, longest)))] = None
    return [list(text) for text in found]


def read_back(pack, text: int) -> list[int]:
    """The tokens that the last token of a text sees, in the order of their positions."""
    row, column = pack.ends[text].tolist()
    seen = pack.visible[row, 0, column].nonzero()[:, 0]
    positions = pack.position_ids[row, seen]
    assert sorted(positions.tolist()) == list(range(len(seen)))
    return pack.input_ids[row, seen[positions.argsort()]].tolist()


@pytest.mark.parametrize("width", [6, 13, 1000])
def test_every_text_is_found_again_on_its_path(width):
    texts = random_texts(60, longest=6)
    pack = pack_prefixes(texts, width, padding=0)
    assert pack.input_ids.shape == pack.position_ids.shape and pack.input_ids.shape[1] <= width
    assert [read_back(pack, i) for i in range(len(texts))] == texts


def test_one_row_holds_every_prefix_once():
    texts = random_texts(60, longest=6)
    prefixes = {tuple(text[:n]) for text in texts for n in range(1, len(text) + 1)}
    pack = pack_prefixes(texts, 1000, padding=0)
    assert pack.input_ids.shape == (1, len(prefixes))


def test_by_hand():
    pack = pack_prefixes([[7, 8, 9], [7, 5], [4]], width=5, padding=0)
    assert pack.input_ids.tolist() == [[4, 7, 5, 8, 9]]
    assert pack.position_ids.tolist() == [[0, 0, 1, 1, 2]]
    assert pack.ends.tolist() == [[0, 4], [0, 2], [0, 0]]
    sees = [[0], [1], [1, 2], [1, 3], [1, 3, 4]]
    assert [row.nonzero()[:, 0].tolist() for row in pack.visible[0, 0]] == sees


def test_a_prefix_is_repeated_in_the_next_row_and_the_rest_is_padded():
    pack = pack_prefixes([[7, 8, 9], [7, 8, 5], [7, 8, 6, 3]], width=4, padding=0)
    assert pack.input_ids.tolist() == [[7, 8, 5, 0], [7, 8, 6, 3], [7, 8, 9, 0]]
    assert pack.visible[0, 0, 3].tolist() == [False, False, False, True], "padding attends to itself"
    assert not pack.visible[0, 0, :3, 3].any()


@pytest.fixture(scope="module")
def tokenizer(tiny_clip_dir):
    return AutoTokenizer.from_pretrained(tiny_clip_dir)


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("eos", ["the tokenizer's", 2])
def test_features_are_those_of_stock_clip(tiny_clip_dir, tokenizer, kernel, eos):
    model = CLIPModel.from_pretrained(tiny_clip_dir, dtype=torch.float64, attn_implementation=kernel).eval()
    if eos == 2:  # old checkpoints: pools at the highest id
        model.text_model.eos_token_id = model.config.text_config.eos_token_id = 2
    text_config = model.config.text_config
    close = text_config.vocab_size - 1 if eos == 2 else text_config.eos_token_id
    rng = random.Random(0)
    words = range(3, text_config.vocab_size - 2)
    stem = [tokenizer.bos_token_id, *rng.choices(words, k=9)]
    texts = [
        [*stem[: rng.randint(1, 10)], *rng.choices(words, k=rng.randint(0, 4)), close] for _ in range(40)
    ]
    texts.append([*stem, close, 5, 6, close])  # nothing counts after the first end
    with torch.no_grad():
        expected = [model.get_text_features(torch.tensor([text])).pooler_output for text in texts]
    encoder = TextEncoder(model, tokenizer, batch_size=16)
    rows = []
    model.text_model.register_forward_hook(lambda m, a, out: rows.append(out.last_hidden_state.shape[:2]))
    found = encoder.encode_ids(texts)
    # Eager attention takes its softmax in fp32, whatever the model's precision.
    torch.testing.assert_close(found, torch.cat(expected).float(), rtol=1e-6, atol=1e-6)
    assert sum(n * width for n, width in rows) < 0.8 * sum(map(len, texts)), "beginnings are encoded once"
