"""The gradient-guided substitution against brute force."""

from __future__ import annotations

import itertools

import pytest
import torch
from tiny_text import PROMPTS, tiny_encoder

from hf_hierrobust.attacks import GradientAttack, coordinate_kl
from hf_hierrobust.attacks.text.sentence import STOP_WORDS, Sentence
from hf_hierrobust.modeling import TextEncoder

VOCABULARY = ["cat", "dog", "oak", "rose", "animal", "plant", "thing", "photo", "picture", "image", "the"]


class LinearEncoder(TextEncoder):
    """Features are linear in the token embeddings, with a different map at each place."""

    def _encode(self, ids):
        return self._features(self._pad(ids))

    def _features(self, batch):
        embeddings = self._table(batch.input_ids) * batch.attention_mask[:, :, None]
        maps = torch.randn(self.context, 32, 8, generator=torch.Generator().manual_seed(0))
        return torch.einsum("ntw,twd->nd", embeddings, maps[: embeddings.shape[1]])


@pytest.fixture
def linear() -> TextEncoder:
    encoder = tiny_encoder()
    return LinearEncoder(encoder.module, encoder.tokenizer)


def flips(text: str, words=None):
    """Every text that differs from this one by one word of the vocabulary."""
    sentence = Sentence.parse(text)
    for place, word in enumerate(sentence.words):
        if word in STOP_WORDS or (words is not None and place not in words):
            continue
        for substitute in VOCABULARY:
            if substitute not in (word, "the"):
                yield sentence.replace({place: substitute})


@pytest.mark.parametrize("text", ["This is a photo of a cat.", "dog plant", "primrose, image", "a red thing"])
def test_equals_brute_force_where_the_model_is_linear(linear, text):
    direction = torch.randn(8, generator=torch.Generator().manual_seed(1))

    def score(embeddings, index):
        return embeddings @ direction

    variants = list(flips(text))
    values = score(linear(variants), None)
    result = GradientAttack(vocabulary=VOCABULARY, num_candidates=1)([text], linear, score=score)
    assert values.max() > score(linear([text]), None)
    assert result.texts == [variants[int(values.argmax())]]
    torch.testing.assert_close(result.scores, values.max()[None])


def test_label_free_score_has_a_gradient_and_the_best_of_the_words_is_found():
    encoder = tiny_encoder()
    full = GradientAttack(vocabulary=VOCABULARY, num_candidates=99)(PROMPTS, encoder)
    guided = GradientAttack(vocabulary=VOCABULARY, num_candidates=2)(PROMPTS, encoder)
    for row, text in enumerate(PROMPTS):
        old, new = Sentence.parse(text).words, Sentence.parse(full.texts[row]).words
        (place,) = [i for i, (a, b) in enumerate(itertools.zip_longest(old, new)) if a != b]
        variants = list(flips(text, {place}))
        values = coordinate_kl(encoder([text]).expand(len(variants), -1), encoder(variants))
        assert full.texts[row] == variants[int(values.argmax())]
        assert full.scores[row] == pytest.approx(float(values.max()), rel=1e-3)
    assert (guided.scores <= full.scores * 1.001).all() and (guided.scores > 0).all()


def test_gradients_guide_better_than_chance():
    encoder = tiny_encoder()
    guided = GradientAttack(num_candidates=1)(PROMPTS, encoder)
    words = [w for w in encoder.whole_words if w not in STOP_WORDS]
    for row, text in enumerate(PROMPTS):
        sentence = Sentence.parse(text)
        new = Sentence.parse(guided.texts[row]).words
        (place,) = [i for i, (a, b) in enumerate(zip(sentence.words, new)) if a != b]
        variants = [sentence.replace({place: word}) for word in words]
        values = coordinate_kl(encoder([text]).expand(len(variants), -1), encoder(variants))
        assert guided.scores[row] > values.median()


def test_a_vocabulary_without_tokens_is_refused():
    with pytest.raises(ValueError, match=r"only 1 words of vocabulary=\['cat', 'the', 'zebra'\]"):
        GradientAttack(vocabulary=["cat", "the", "zebra"])(["a dog"], tiny_encoder())
