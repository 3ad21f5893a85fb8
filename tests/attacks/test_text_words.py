"""Word substitution against a slow reference, and what every text attack must leave alone."""

from __future__ import annotations

import pyarrow
import pyarrow.parquet
import pytest
import torch
import torch.nn.functional as F
from slow_bert_attack import slow_attack, slow_embed, slow_kl
from tiny_text import PROMPTS, make_tiny_mlm, tiny_encoder

from hf_hierrobust.attacks import TEXT_ATTACKS, BertAttack, SynonymAttack
from hf_hierrobust.attacks.text.candidates import MaskedLM
from hf_hierrobust.attacks.text.sentence import STOP_WORDS, Sentence


@pytest.fixture(scope="module")
def mlm_dir(tmp_path_factory) -> str:
    return make_tiny_mlm(tmp_path_factory.mktemp("tiny-mlm"))


@pytest.fixture
def encoder():
    return tiny_encoder()


@pytest.fixture(scope="module")
def wordnet_path(tmp_path_factory) -> str:
    synsets = {
        "n00000001": ["dog", "domestic_dog", "hound"],
        "n00000002": ["frump", "dog"],
        "n00000003": ["cat", "the"],
        "n00000004": ["photo", "picture"],
    }
    strings = pyarrow.list_(pyarrow.string())
    empty = pyarrow.array([[]] * len(synsets), strings)
    table = {
        "wnid": pyarrow.array(list(synsets)),
        "lemmas": pyarrow.array(list(synsets.values()), strings),
        "hypernyms": empty,
        "instance_hypernyms": empty,
    }
    path = tmp_path_factory.mktemp("wordnet") / "nouns.parquet"
    pyarrow.parquet.write_table(pyarrow.table(table), path)
    return str(path)


@pytest.fixture(params=["bert", "gradient", "synonym"])
def attack(request, mlm_dir, wordnet_path):
    options = {"bert": {"model_name": mlm_dir}, "gradient": {}, "synonym": {"wordnet_path": wordnet_path}}
    return TEXT_ATTACKS.get(request.param)(**options[request.param])


@pytest.mark.parametrize(("quirks", "num_words", "k"), [(False, 1, 10), (False, 2, 4), (True, 2, 10)])
def test_equals_the_one_by_one_algorithm(encoder, mlm_dir, quirks, num_words, k):
    attack = BertAttack(model_name=mlm_dir, num_candidates=k, num_words=num_words, official_quirks=quirks)
    prompts = PROMPTS[1:]
    result = attack(prompts, encoder)
    expected = [slow_attack(text, encoder, mlm_dir, k, num_words, quirks) for text in prompts]
    assert result.texts == [text for text, _ in expected]
    torch.testing.assert_close(
        result.scores, torch.tensor([kl for _, kl in expected], dtype=torch.float32), rtol=1e-3, atol=1e-9
    )
    assert result.changed.tolist() == [a != b for a, b in zip(prompts, result.texts)]
    assert result.changed.sum() >= 4


def test_the_published_code_reads_the_token_before(mlm_dir):
    """With the start token forgotten, a word gets its left neighbour's candidates."""
    sentence = Sentence.parse("big dog", keep_punctuation=True)
    fixed = MaskedLM(mlm_dir, 10, None, 30, official_quirks=False)
    quirky = MaskedLM(mlm_dir, 10, -1e9, 30, official_quirks=True)
    _, tops = fixed._predict([fixed.tokenizer("big dog")["input_ids"]])
    names = [fixed.tokenizer.convert_ids_to_tokens(row) for row in tops[0].tolist()]

    def usable(tokens, word):
        return [t for t in tokens if t not in STOP_WORDS and "##" not in t and t != word]

    cpu = torch.device("cpu")
    assert quirky([sentence], cpu)[0] == [usable(names[0], "big"), usable(names[1], "dog")]
    assert fixed([sentence], cpu)[0][1] == [t for t in usable(names[2], "dog") if t.isalnum()]


# --- what a substitution is


def test_whole_words_few_of_them_and_never_a_lower_score(attack, encoder):
    attack.num_words = 2
    result = attack(PROMPTS, encoder)
    assert result.changed.any()
    for before, after, kl in zip(PROMPTS, result.texts, result.scores.tolist()):
        old, new = Sentence.parse(before), Sentence.parse(after)
        assert len(old.words) == len(new.words)
        different = [(a, b) for a, b in zip(old.words, new.words) if a != b]
        assert len(different) <= 2
        assert all(b.isalnum() and b not in STOP_WORDS and a not in STOP_WORDS for a, b in different)
        assert new.replace(dict(enumerate(old.words))) == before  # punctuation and blanks as they were
        assert kl == pytest.approx(slow_kl(slow_embed(encoder, before), slow_embed(encoder, after)), rel=1e-3)
        assert (kl > 0) == bool(different)


def test_punctuation_does_not_split_a_word(mlm_dir):
    lm = MaskedLM(mlm_dir, 6, None, 30, official_quirks=False)
    plain, stopped = (lm([Sentence.parse(t)], torch.device("cpu"))[0] for t in ("cat dog", "cat dog,"))
    assert 1 <= len(stopped[1]) <= 6 and set(stopped[1]) <= set(lm.tokenizer.get_vocab())
    assert len(plain) == len(stopped) == 2
    quirky = MaskedLM(mlm_dir, 6, None, 30, official_quirks=True)
    kept = quirky([Sentence.parse("cat dog,", keep_punctuation=True)], torch.device("cpu"))[0]
    assert len(kept[1]) > 6  # the combinations of two tokens


def test_threshold_and_length_limit_what_is_replaced(encoder, mlm_dir):
    texts = ["a cat", "the dog"]
    sure = BertAttack(model_name=mlm_dir, threshold=1.0)(texts, encoder)
    assert sure.texts == texts and not sure.changed.any() and (sure.scores == 0).all()
    lm = MaskedLM(mlm_dir, 10, None, 30, official_quirks=False)
    best = float(lm._predict([lm.tokenizer("a cat")["input_ids"]])[0][0, 2, 0])
    above, below = (
        MaskedLM(mlm_dir, 10, best * f, 30, official_quirks=False)([Sentence.parse("a cat")], "cpu")[0][1]
        for f in (1.01, 0.99)
    )
    assert above == [] and len(below) <= 1
    short = BertAttack(model_name=mlm_dir, max_tokens=4, num_words=4)
    assert short(["cat dog oak rose"], encoder).texts[0].endswith(" oak rose")  # [CLS] cat dog [SEP]


def test_semantic_filter(encoder, mlm_dir):
    def animals(texts):
        return torch.tensor([[1.0, 0.0] if "cat" in t or "animal" in t else [0.0, 1.0] for t in texts])

    free, kept = (
        BertAttack(model_name=mlm_dir, num_candidates=50, semantic_filter=f) for f in (None, animals)
    )
    assert free(["a cat"], encoder).texts != ["a animal"]
    assert kept(["a cat"], encoder).texts == ["a animal"]
    assert kept(["a dog"], encoder).texts[0] not in ("a dog", "a cat", "a animal")
    assert kept.describe()["semantic_filter"] == "animals"


def test_synonyms_come_from_all_senses(encoder, wordnet_path):
    attack = SynonymAttack(wordnet_path=wordnet_path)
    result = attack(["a dog", "a cat", "a big photo"], encoder)
    assert result.texts[0] in ("a hound", "a frump")
    assert result.texts[1:] == ["a cat", "a big picture"]  # a stop word is no substitute
    assert attack._source.of("Dog") == ["hound", "frump"]
    with pytest.raises(FileNotFoundError, match="no WordNet at"):
        SynonymAttack(wordnet_path="/nowhere")(["a dog"], encoder)


# --- cost


def test_few_calls_of_the_encoder_and_each_caption_once(encoder, mlm_dir, monkeypatch):
    calls = []
    encode = encoder.encode_ids
    monkeypatch.setattr(encoder, "encode_ids", lambda ids: calls.append(len(ids)) or encode(ids))
    attack = BertAttack(model_name=mlm_dir)
    attack(PROMPTS, encoder)
    assert len(calls) == 3  # originals, importance, substitutes
    once, calls[:] = list(calls), []
    result = attack(PROMPTS * 3, encoder)
    assert calls == once
    assert result.texts == result.texts[: len(PROMPTS)] * 3


def test_candidates_are_kept_but_scores_are_not(encoder, mlm_dir):
    attack = BertAttack(model_name=mlm_dir)
    first = attack(PROMPTS, encoder)
    forwards = []
    attack._source.model.register_forward_hook(lambda *_: forwards.append(1))
    with torch.no_grad():
        encoder.module.text_model.embeddings.token_embedding.weight.copy_(
            encoder.module.text_model.embeddings.token_embedding.weight.flip(0)
        )
    second = attack(PROMPTS, encoder)
    assert not forwards
    assert not torch.allclose(first.scores, second.scores, rtol=1e-2)
    attack(["a red dog"], encoder)
    assert len(forwards) == 1


# --- scores other than the default


def test_own_score_sees_which_original_each_variant_belongs_to(attack, encoder, seeded):
    texts = ["a dog", "a dog", "a cat photo"]
    images = 20 * F.normalize(torch.randn(3, 32, generator=seeded()), dim=-1)

    def score(embeddings, index):
        """Cross-entropy of a caption against the images of its batch, its own the target."""
        return F.cross_entropy(F.normalize(embeddings, dim=-1) @ images.T, index, reduction="none")

    clean = score(encoder(texts), torch.arange(3))
    result = attack(texts, encoder, score=score)
    assert (result.scores >= clean - 1e-5).all() and (result.scores > clean + 1e-3).any()
    torch.testing.assert_close(
        result.scores, score(encoder(result.texts), torch.arange(3)), rtol=1e-4, atol=1e-5
    )
    for row in range(2):  # equal captions of different images are two attacks
        alone = attack(["a dog"], encoder, score=lambda e, i, row=row: score(e, i + row))
        assert alone.texts == [result.texts[row]]


def test_words_are_tried_until_one_helps(encoder, mlm_dir):
    """A score that only a change of "cat" raises: the more important "dog" is passed over."""
    cat = encoder.tokenize(["cat"])[0][1]
    encode = encoder.encode_ids
    encoder.encode_ids = lambda ids: torch.cat(
        [encode(ids), torch.tensor([[float(cat not in row)] for row in ids])], 1
    )
    result = BertAttack(model_name=mlm_dir)(["dog cat"], encoder, score=lambda e, i: e[:, -1])
    assert result.texts[0].startswith("dog ") and result.scores.tolist() == [1.0]


# --- manners


def test_modes_flags_and_gradients_are_left_alone(attack, encoder):
    model = encoder.module.train()
    model.logit_scale.requires_grad_(False)
    modes = [part.training for part in model.modules()]
    flags = [p.requires_grad for p in model.parameters()]
    attack(PROMPTS[:2], encoder)
    assert [part.training for part in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())


def test_registered_names_and_bad_input(attack, encoder, mlm_dir):
    assert {"bert", "gradient", "synonym"} <= set(TEXT_ATTACKS.names())
    assert attack.describe()["name"] == attack.name and "_source" not in attack.describe()
    for texts, error, message in (
        ("a dog", TypeError, "texts is one string"),
        ([], ValueError, "texts is empty"),
        (["a dog", 3], TypeError, r"texts\[1\] is a int"),
        (["dog " * 40], ValueError, "context is 32"),
    ):
        with pytest.raises(error, match=message):
            attack(texts, encoder)
    with pytest.raises(ValueError, match=r"expected .*one value per text"):
        attack(["a dog"], encoder, score=lambda e, i: e)
    with torch.inference_mode(), pytest.raises(RuntimeError, match="inference_mode"):
        attack(["a dog"], encoder)
    assert attack(["the", "..."], encoder).texts == ["the", "..."]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_words": 0}, "num_words=0"),
        ({"num_candidates": 0}, "num_candidates=0"),
        ({"min_similarity": 2}, "min_similarity=2"),
        ({"max_tokens": 2}, "max_tokens=2"),
        ({"threshold": 3.0}, r"threshold=3.0 must be a number in \[0, 1\]"),
        ({"threshold": "0.3"}, "threshold='0.3' must be a number"),
        ({"max_tokens": "30"}, "max_tokens='30' must be an integer"),
        ({"min_similarity": "0.4"}, "min_similarity='0.4' must be a number"),
        ({"official_quirks": "false"}, "official_quirks='false' must be true or false"),
        ({"semantic_filter": "all-MiniLM-L6-v2"}, "semantic_filter='all-MiniLM-L6-v2' must be a function"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        BertAttack(**options)


def test_missing_language_model(encoder, tmp_path):
    with pytest.raises(OSError, match=r"masked language model model_name=.*'synonym'"):
        BertAttack(model_name=str(tmp_path / "none"))(["a dog"], encoder)


def test_a_variant_beyond_the_context_is_not_chosen(encoder):
    dog = encoder.tokenize(["dog"])[0][1]
    encoder.encode_ids = lambda ids: torch.tensor([[len(row) + 0.5 * (dog in row)] for row in ids])
    attack = SynonymAttack()
    for words, expected in ((20, "zzzzqqqq"), (29, "dog")):  # 29 words, cat, start and end fill the context
        attack._source = lambda s, device, n=words: [[[]] * n + [["zzzzqqqq", "dog"]]]
        result = attack(["plant " * words + "cat"], encoder, score=lambda e, i: e[:, 0])
        assert result.texts[0].endswith(f" {expected}")


def test_with_a_real_language_model(encoder, shared_dir):
    attack = BertAttack(model_name=str(shared_dir / "models" / "mlm-small"))
    result = attack(["This is a photo of a dog.", "a cat on the beach"], encoder)
    assert result.changed.all()
    candidates = attack._source._cache["This is a photo of a dog."]
    assert "picture" in candidates[3] and "pet" in candidates[6] and candidates[1] == []


def test_records_do_not_name_folders_of_the_machine(tmp_path):
    folder = tmp_path / "mlm"
    folder.mkdir()
    assert BertAttack(model_name=str(folder)).describe()["model_name"] == "mlm"
    assert BertAttack().describe()["model_name"] == "google-bert/bert-base-uncased"
