"""PGD on token embeddings: its ball, its ascent, its manners."""

from __future__ import annotations

import pytest
import torch
from tiny_text import PROMPTS, tiny_encoder

from hf_hierrobust.attacks import EmbeddingPGD, PromptCrossEntropy, coordinate_kl


@pytest.fixture
def encoder():
    return tiny_encoder()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_stays_in_its_ball_and_raises_the_score(encoder, norm, seeded):
    attack = EmbeddingPGD(norm=norm, eps=0.3)
    state = torch.get_rng_state()
    result = attack(PROMPTS, encoder, generator=seeded())
    assert torch.equal(torch.get_rng_state(), state)

    clean = encoder.token_embeddings(result.tokens)
    delta = result.token_embeddings - clean
    words = [w for w in encoder.whole_words if w.isalpha()]
    table = encoder.module.text_model.embeddings.token_embedding.weight.detach()
    radius = 0.3 * float(table[[encoder.whole_words[w] for w in words]].norm(dim=1).mean())
    size = delta.norm(dim=-1) if norm == "l2" else delta.abs().amax(-1) * clean.shape[-1] ** 0.5
    assert size.max() <= radius * 1.0001 and size.max() > 0.9 * radius
    ids = result.tokens.input_ids
    special = (ids == encoder.tokenizer.bos_token_id) | (ids == encoder.tokenizer.eos_token_id)
    assert (delta[special] == 0).all() and (size[~special] > 0).all()

    encoder.module.eval()
    features = encoder.from_embeddings(result.tokens, result.token_embeddings)
    torch.testing.assert_close(result.features, features, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(result.scores, coordinate_kl(encoder(PROMPTS), features), rtol=1e-2, atol=1e-8)
    assert (result.clean_scores == 0).all()
    noise = EmbeddingPGD(norm=norm, eps=0.3, num_steps=1, step_size=1e-9)(
        PROMPTS, encoder, generator=seeded()
    )
    assert (result.scores > 2 * noise.scores).all()
    again = attack(PROMPTS, encoder, generator=seeded())
    assert torch.equal(again.token_embeddings, result.token_embeddings)


def test_class_prompts_against_images(encoder, seeded):
    images, labels = torch.randn(12, 32, generator=seeded()), torch.arange(12) % len(PROMPTS)
    score = PromptCrossEntropy(images, labels, encoder(PROMPTS), 20.0)
    result = EmbeddingPGD(random_start="zero", eps=0.5)(PROMPTS, encoder, score=score)
    assert (result.scores > result.clean_scores + 1e-3).all()
    still = EmbeddingPGD(random_start="zero")(PROMPTS, encoder)
    assert (still.scores == 0).all()  # the label-free score's gradient at the original is zero


def test_special_tokens_on_request(encoder, seeded):
    result = EmbeddingPGD(special_tokens=True)(["a dog", "a big red dog"], encoder, generator=seeded())
    delta = result.token_embeddings - encoder.token_embeddings(result.tokens)
    assert (delta[:, 0].norm(dim=-1) > 0).all()


def test_modes_flags_and_gradients_are_left_alone(encoder):
    model = encoder.module.train()
    model.logit_scale.requires_grad_(False)
    flags = [p.requires_grad for p in model.parameters()]
    EmbeddingPGD(num_steps=2)(PROMPTS, encoder)
    assert all(part.training for part in model.modules())
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "l1"}, "norm='l1'"),
        ({"eps": 0}, "eps=0"),
        ({"num_steps": 0}, "num_steps=0"),
        ({"step_size": -1}, "step_size=-1"),
        ({"random_start": "gaussian"}, "random_start='gaussian'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        EmbeddingPGD(**options)


def test_bad_input(encoder):
    with pytest.raises(TypeError, match="texts is one string"):
        EmbeddingPGD()("a dog", encoder)
    with pytest.raises(ValueError, match="the gradient of the text score is NaN"):
        EmbeddingPGD()(["a dog"], encoder, score=lambda e, i: e.sum(1) * torch.nan)
