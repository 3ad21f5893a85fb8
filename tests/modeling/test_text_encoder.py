"""Texts to embeddings: equal to the model's own, once each, differentiable in the token embeddings."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import AutoTokenizer, CLIPModel, SiglipConfig, SiglipModel

from hf_hierrobust.modeling import TextEncoder

TEXTS = ["this is a photo of a cat", "dog", "oak picture", "dog", "Dog", "a photo of a rose thing"]


@pytest.fixture(scope="module")
def tokenizer(tiny_clip_dir):
    return AutoTokenizer.from_pretrained(tiny_clip_dir)


@pytest.fixture
def encoder(tiny_clip_dir, tokenizer) -> TextEncoder:
    return TextEncoder(CLIPModel.from_pretrained(tiny_clip_dir), tokenizer, batch_size=2)


def test_equals_the_models_own_features_in_the_order_given(encoder, tokenizer):
    batch = tokenizer(TEXTS, padding="max_length", return_tensors="pt")
    with torch.no_grad():
        expected = encoder.module.eval().get_text_features(**batch).pooler_output
    found = encoder(TEXTS)
    assert found.dtype == torch.float32 and not found.requires_grad
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (found[0] - found[1]).norm() > 0.1 * found[0].norm()


def test_equal_texts_are_encoded_once(encoder, monkeypatch):
    encoded = []
    encode = encoder._encode
    monkeypatch.setattr(encoder, "_encode", lambda ids: (encoded.append(len(ids)), encode(ids))[1])
    features = encoder(TEXTS)
    assert encoded == [2, 2]  # "dog" three times, "Dog" being the same tokens
    assert torch.equal(features[1], features[3]) and torch.equal(features[1], features[4])


def test_modes_and_gradients_are_left_alone(encoder):
    model = encoder.module.train()
    model.vision_model.eval()
    model.text_projection.weight.grad = torch.ones_like(model.text_projection.weight)
    modes = [part.training for part in model.modules()]
    encoder(TEXTS)
    assert [part.training for part in model.modules()] == modes and len(set(modes)) == 2
    assert torch.equal(model.text_projection.weight.grad, torch.ones_like(model.text_projection.weight))


def test_it_reads_the_current_weights(encoder):
    before = encoder(TEXTS)
    with torch.no_grad():
        encoder.module.text_projection.weight.mul_(2)
    torch.testing.assert_close(encoder(TEXTS), 2 * before)


def test_token_embeddings_are_a_door_to_the_same_features(encoder):
    encoder.module.eval()
    batch = encoder.tokens(TEXTS)
    embeddings = encoder.token_embeddings(batch)
    assert embeddings.shape == (*batch.input_ids.shape, 32) and not embeddings.requires_grad
    embeddings.requires_grad_()
    features = encoder.from_embeddings(batch, embeddings)
    torch.testing.assert_close(features, encoder(TEXTS), rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(features.square().sum(), [embeddings])
    words = batch.attention_mask.bool()
    assert (gradient[words].norm(dim=-1) > 0).all()
    assert (gradient[~words] == 0).all()  # what follows the end token does not matter
    assert not encoder.module.text_model.embeddings.token_embedding._forward_hooks
    assert not torch.allclose(encoder.from_embeddings(batch, 2 * embeddings), features)
    with pytest.raises(ValueError, match="one vector per token"):
        encoder.from_embeddings(batch, embeddings[:, :-1])


def test_whole_words_are_single_tokens(encoder, tokenizer):
    words = encoder.whole_words
    assert {"cat", "dog", "photo", "picture"} <= set(words)
    assert list(words) == sorted(words)
    for word, token_id in words.items():
        assert tokenizer(f"a {word} a", add_special_tokens=False)["input_ids"][1:-1] == [token_id]
    table = encoder.module.text_model.embeddings.token_embedding.weight
    assert torch.equal(encoder.word_embeddings([words["cat"]])[0], table[words["cat"]])


def test_siglip_pads_to_its_context_and_has_no_mask(tokenizer):
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 16,
        "projection_size": 32,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    vision = {k: text[k] for k in list(text)[1:5]} | {"image_size": 16, "patch_size": 8}
    torch.manual_seed(0)
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).eval()
    encoder = TextEncoder(model, tokenizer, batch_size=2)
    ids = tokenizer(TEXTS, padding="max_length", max_length=16, return_tensors="pt").input_ids
    with torch.no_grad():
        expected = model.get_text_features(input_ids=ids).pooler_output
    torch.testing.assert_close(encoder(TEXTS), expected, rtol=1e-4, atol=1e-5)
    batch = encoder.tokens(TEXTS)
    assert batch.attention_mask is None
    features = encoder.from_embeddings(batch, encoder.token_embeddings(batch))
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)


def test_long_texts_lose_their_last_words(encoder):
    kept, short, exact = encoder.fit([" ".join(["dog"] * 40), "cat", " ".join(["dog"] * 14)])
    assert short == "cat" and len(exact.split()) == 14, "a text that fits stays as it is"
    assert kept == exact, "start, 14 words, end"
    (word,) = encoder.fit(["z" * 40])  # no blank to cut at: its end goes by tokens
    assert word and set(word) == {"z"} and encoder.too_long([word]) == 0 < encoder.too_long([word + "zz"])


def test_bad_input(encoder, tokenizer):
    with pytest.raises(ValueError, match="texts is empty"):
        encoder([])
    with pytest.raises(ValueError, match=r"'dog dog .*' has 22 tokens but .* context is 16"):
        encoder(["cat", "dog " * 20])
    with pytest.raises(ValueError, match="batch_size=0"):
        TextEncoder(encoder.module, tokenizer, batch_size=0)
    plain = nn.Linear(2, 2)
    plain.config = encoder.module.config.text_config
    with pytest.raises(ValueError, match="Linear without a text tower"):
        TextEncoder(plain, tokenizer)
