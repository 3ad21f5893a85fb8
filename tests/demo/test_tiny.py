"""Offline tokenizer, processor, config and pretraining of the tiny CLIP."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PILImage
from transformers import AutoModel, AutoProcessor, CLIPModel, pipeline

from hf_hierrobust.demo import pretraining as tiny_pretraining
from hf_hierrobust.demo.pretraining import PretrainRecipe, _caption_loss, pretrain_glyph_clip
from hf_hierrobust.demo.tiny import build_processor, build_tokenizer, tiny_clip_config

PATHS = {
    "rose": ["red", "warm"],
    "brick": ["red", "warm"],
    "leaf": ["green", "cold"],
    "sky": ["blue", "cold"],
}
COLOURS = {"rose": (230, 40, 120), "brick": (180, 60, 20), "leaf": (30, 200, 60), "sky": (40, 90, 230)}
RECIPE = PretrainRecipe(epochs=6, batch_size=16)


@pytest.fixture(scope="module")
def colours() -> Dataset:
    """Noisy one-colour images of four classes: learnt in seconds."""
    rng = np.random.default_rng(0)
    labels = [index % 4 for index in range(128)]
    arrays = [
        np.clip(np.array(list(COLOURS.values())[label]) + rng.normal(0, 15, (16, 16, 3)), 0, 255)
        for label in labels
    ]
    features = Features({"image": Image(), "label": ClassLabel(names=list(PATHS))})
    images = [PILImage.fromarray(array.astype(np.uint8)) for array in arrays]
    return Dataset.from_dict({"image": images, "label": labels}, features=features)


@pytest.fixture(scope="module")
def pretrained(colours, tmp_path_factory):
    return pretrain_glyph_clip(
        tmp_path_factory.mktemp("tiny"), dataset=colours, paths=PATHS, recipe=RECIPE, threads=1
    )


@pytest.mark.parametrize("text", ["a photo of a cat.", "naïve Žluť", "漢字 🐱 \x07", "q" * 40])
def test_tokenizer_never_meets_an_unknown_byte(text):
    tokenizer = build_tokenizer(["a photo of a dog."], max_length=120)
    ids = tokenizer(text)["input_ids"]
    # The unknown token is the end token: one more of it would cut the text short for the text tower.
    assert ids.count(tokenizer.eos_token_id) == 1 and ids[-1] == tokenizer.eos_token_id
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.eos_token_id == len(tokenizer) - 1


def test_tokenizer_depends_on_the_corpus_alone():
    corpus = [f"a photo of a {name}." for name in ("dog", "god", "odd", "chess knight", "night", "things")]
    first, *others = (build_tokenizer(corpus).backend_tokenizer.to_str() for _ in range(4))
    assert others == [first] * 3


def test_tokenizer_truncates_and_survives_saving(tmp_path):
    tokenizer = build_tokenizer(["a photo of a dog.", "chess knight"], max_length=8)
    build_processor(16, tokenizer).save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path).tokenizer
    for text in ("a photo of a dog.", "unseen words in a long sentence"):
        ids = tokenizer(text, truncation=True)["input_ids"]
        assert len(ids) <= 8 and ids[-1] == tokenizer.eos_token_id
        assert loaded(text, truncation=True)["input_ids"] == ids


def test_processor_resizes_and_maps_to_plus_minus_one():
    processor = build_processor(24, build_tokenizer(["x"]))
    image = PILImage.fromarray(np.full((50, 70, 3), (0, 255, 51), dtype=np.uint8))
    values = processor(images=image, return_tensors="pt")["pixel_values"]
    assert values.shape == (1, 3, 24, 24)
    torch.testing.assert_close(values.mean(dim=(0, 2, 3)), torch.tensor([-1.0, 1.0, -0.6]))


def test_texts_of_an_untrained_model_differ():
    tokenizer = build_tokenizer(["a photo of a dog."])
    model = CLIPModel(tiny_clip_config(tokenizer)).eval()
    batch = tokenizer(["a dog", "a cat", "a very long text"], padding=True, return_tensors="pt")
    with torch.no_grad():
        features = model.get_text_features(**batch).pooler_output
    # With the default end token id all texts pool the start token and are equal to the bit.
    assert torch.pdist(features).min() > 1e-3


@pytest.mark.parametrize(
    ("corpus", "max_length", "message"), [([], 16, "corpus is empty"), (["x"], 2, "max_length=2")]
)
def test_tokenizer_refuses(corpus, max_length, message):
    with pytest.raises(ValueError, match=message):
        build_tokenizer(corpus, max_length)


def test_caption_loss_leaves_other_true_names_out():
    chains = torch.tensor([[0, 3, 5]])
    logits = torch.tensor([[1.0, 0.5, -1.0, 9.0, 0.0, 8.0, 0.2]], requires_grad=True)
    loss = _caption_loss(logits, chains, torch.tensor([0]))
    kept = logits[:, [0, 1, 2, 4, 6]]
    torch.testing.assert_close(loss, kept.logsumexp(1)[0] - logits[0, 0])
    loss.backward()
    assert logits.grad[0, 3] == 0 and logits.grad[0, 5] == 0


def test_pretrained_folder_is_stock_and_understands_all_levels(pretrained, colours):
    model, info = AutoModel.from_pretrained(pretrained, output_loading_info=True)
    assert type(model) is CLIPModel
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    processor = AutoProcessor.from_pretrained(pretrained)
    pixel_values = processor(images=colours["image"][:32], return_tensors="pt")["pixel_values"]
    for level, expected in enumerate((0.9, 0.8, 0.8)):
        names = list(dict.fromkeys((leaf, *path)[level] for leaf, path in PATHS.items()))
        texts = processor(text=[f"a photo of a {name}." for name in names], padding=True, return_tensors="pt")
        truth = torch.tensor(
            [names.index(([*PATHS][y], *[*PATHS.values()][y])[level]) for y in colours["label"][:32]]
        )
        with torch.no_grad():
            prediction = model(pixel_values=pixel_values, **texts).logits_per_image.argmax(-1)
        assert (prediction == truth).float().mean() >= expected, f"level {level}"
    classify = pipeline("zero-shot-image-classification", model=str(pretrained))
    best = classify(
        colours[2]["image"], candidate_labels=list(PATHS), hypothesis_template="a photo of a {}."
    )[0]
    assert best["label"] == "leaf"


def test_same_data_and_recipe_reuse_the_folder(pretrained, colours, monkeypatch):
    def never(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(tiny_pretraining, "_pretrain", never)
    common = {"dataset": colours, "paths": PATHS}
    assert pretrain_glyph_clip(pretrained.parent, recipe=RECIPE, **common) == pretrained
    for recipe in (replace(RECIPE, seed=1), replace(RECIPE, epochs=7)):
        with pytest.raises(AssertionError, match="trained again"):
            pretrain_glyph_clip(pretrained.parent, recipe=recipe, **common)
    with pytest.raises(AssertionError, match="trained again"):
        pretrain_glyph_clip(pretrained.parent, dataset=colours.select(range(64)), paths=PATHS, recipe=RECIPE)
    assert sorted(path.name for path in pretrained.parent.iterdir()) == [pretrained.name]
    assert json.loads((pretrained / "pretraining.json").read_text())["recipe"]["epochs"] == RECIPE.epochs


def test_pretraining_repeats_and_leaves_the_process_as_it_was(pretrained, colours, tmp_path):
    torch.manual_seed(7)
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    again = pretrain_glyph_clip(tmp_path, dataset=colours, paths=PATHS, recipe=RECIPE, threads=1)
    assert again.name == pretrained.name
    assert torch.equal(torch.random.get_rng_state(), state) and torch.get_num_threads() == threads
    first, second = (CLIPModel.from_pretrained(path).state_dict() for path in (pretrained, again))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=1e-6)


def test_interrupted_pretraining_leaves_no_folder(colours, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(CLIPModel, "save_pretrained", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pretrain_glyph_clip(tmp_path, dataset=colours, paths=PATHS, recipe=replace(RECIPE, epochs=1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ({"rose": ["red"]}, "label order"),
        (dict(reversed(PATHS.items())), "'sky', 'rose'"),
        ({**PATHS, "sky": ["blue"]}, "different depth"),
        ({**PATHS, "sky": ["rose", "cold"]}, "'rose' names two nodes"),
    ],
)
def test_tree_must_match_the_labels(colours, tmp_path, paths, message):
    with pytest.raises(ValueError, match=message):
        pretrain_glyph_clip(tmp_path, dataset=colours, paths=paths)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"learning_rate": -1.0}, {"coarser_share": 0.0}])
def test_recipe_refuses(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PretrainRecipe(**wrong)


def test_too_few_images(colours, tmp_path):
    with pytest.raises(ValueError, match="fewer than one batch"):
        pretrain_glyph_clip(tmp_path, dataset=colours.select(range(8)), paths=PATHS, recipe=RECIPE)


def test_images_of_two_sizes_are_refused(colours, tmp_path):
    images = [image.resize((16, 24)) if row == 5 else image for row, image in enumerate(colours["image"])]
    mixed = Dataset.from_dict({"image": images, "label": colours["label"]}, features=colours.features)
    with pytest.raises(ValueError, match=r"square and of one size.*\(16, 24\)"):
        pretrain_glyph_clip(tmp_path, dataset=mixed, paths=PATHS, recipe=RECIPE)


def test_bf16_training_saves_fp32_weights(colours, tmp_path):
    recipe = replace(RECIPE, epochs=1, bf16=True)
    model = AutoModel.from_pretrained(
        pretrain_glyph_clip(tmp_path, dataset=colours, paths=PATHS, recipe=recipe)
    )
    assert model.dtype == torch.float32
    assert all(value.isfinite().all() for value in model.state_dict().values())
