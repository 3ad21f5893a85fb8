"""What a demonstration asks of two models: within limits, step by step, and as `attack_image` answers."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from PIL import Image
from tiny_data import CLASSES, make_images, make_tiny_clip

from hf_hierrobust.runs.attack_image import attack_image
from hf_hierrobust.runs.side_by_side import (
    Limits,
    Pair,
    Request,
    attack_side_by_side,
    demo_trees,
    embedded_pair,
    read_pairs,
)

PATIENT = Limits(seconds=3600)  # on a machine that has other work


def encoded(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def picture():
    return make_images(1, size=40)[0]["image"]


@pytest.fixture(scope="module")
def request_(picture):
    return Request(encoded(picture), labels="cat, dog,oak\nrose", eps=8, steps=3, limits=PATIENT)


def test_both_models_answer_as_one_attacked_alone(request_, picture, tiny_clip_dir, tmp_path):
    other = make_tiny_clip(tmp_path / "other", seed=1)
    told = []
    found = dict(
        attack_side_by_side(
            Pair("tiny", tiny_clip_dir, other), request_, lambda done, said: told.append((done, said))
        )
    )
    picture.save(tmp_path / "alone.png")
    for side, model in (("base", tiny_clip_dir), ("robust", other)):
        alone = attack_image(model, tmp_path / "alone.png", labels=list(CLASSES), eps="8/255", num_steps=3)
        assert found[side].clean == alone.clean and found[side].attacked == alone.attacked
    parts = [done for done, _ in told]
    assert parts == sorted(parts) and parts[0] >= 0 and parts[-1] < 1
    assert any(said.startswith("base model: pass 2 of about") for _, said in told)
    assert told[-1][1].startswith("robust model: pass")


def test_a_pair_without_a_robust_model(request_, tiny_clip_dir):
    found = dict(attack_side_by_side(Pair("tiny", tiny_clip_dir), request_))
    assert found["robust"] is None and found["base"].clean


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": "cat"}, "two or more different labels"),
        ({"labels": "cat, cat"}, "two or more different labels"),
        ({"labels": "a,b,c,d,e"}, "5 labels are more than the 4"),
        ({"labels": "cat," + "x" * 99}, "longer than 60 characters"),
        ({"labels": "/etc/names.json, b", "true": "c"}, "true='c' is none of the classes"),
        ({"tree": "cifar10"}, "labels beside a class tree"),
        ({"tree": "../secret.json", "labels": ""}, "tree '../secret.json' is not offered"),
        ({"tree": "wordnet", "labels": ""}, "is not offered"),
        ({"eps": 17}, r"eps=17/255 must be above 0 and at most 16/255"),
        ({"eps": 0}, "eps=0/255 must be above 0"),
        ({"eps": float("nan")}, "eps=nan/255 must be above 0"),
        ({"steps": 41}, "steps=41 must be a whole number from 1 to 40"),
        ({"steps": 1.5}, "steps=1.5 must be a whole number"),
        ({"picture": b"no image"}, "the picture is not a readable image"),
    ],
)
def test_a_request_beyond_the_limits_is_refused(change, says, request_, tiny_clip_dir):
    asked = replace(request_, limits=Limits(classes=4), **change)
    if change.get("tree") == "cifar10":
        asked = replace(asked, limits=Limits())
    with pytest.raises(ValueError, match=says):
        list(attack_side_by_side(Pair("tiny", tiny_clip_dir), asked))


def test_large_pictures_are_shrunk_and_long_attacks_stopped(request_, tiny_clip_dir):
    large = replace(
        request_, picture=encoded(Image.new("RGB", (900, 300), "teal")), limits=Limits(side=90, seconds=3600)
    )
    found = dict(attack_side_by_side(Pair("tiny", tiny_clip_dir), large))["base"]
    assert found.pixels.shape == (3, 30, 90)
    hasty = replace(request_, limits=Limits(seconds=0))
    with pytest.raises(TimeoutError, match="stopped after 0 seconds"):
        list(attack_side_by_side(Pair("tiny", tiny_clip_dir), hasty))
    # The model, which is kept, counts no more.
    assert dict(attack_side_by_side(Pair("tiny", tiny_clip_dir), request_))["base"].clean


def test_a_model_that_is_not_there_is_named_without_its_folder(request_, tmp_path):
    with pytest.raises(ValueError, match="model 'none' cannot be loaded") as caught:
        list(attack_side_by_side(Pair("none", str(tmp_path / "none")), request_))
    assert str(tmp_path) not in str(caught.value)


def test_pairs_of_a_variable():
    assert read_pairs("B/32 = openai/clip | you/robust; alone=x ;") == [
        Pair("B/32", "openai/clip", "you/robust"),
        Pair("alone", "x"),
    ]
    for text in ("no models", "= a | b", "a = x | y | z", "a = ", "a = x; a = y"):
        with pytest.raises(ValueError, match="models: "):
            read_pairs(text)


def test_the_embedded_pair_has_what_make_demo_left(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_hierrobust.runs.side_by_side.glyph_base", lambda: "base")
    assert embedded_pair(tmp_path).robust is None
    (tmp_path / "config.json").write_text("{}")
    assert embedded_pair(tmp_path).models == {"base": "base", "robust": str(tmp_path)}


def test_trees_within_the_limits():
    assert {"cifar10", "cifar100", "glyphs"} <= set(demo_trees(Limits()))
    assert "cifar100" not in demo_trees(Limits(classes=50)) and "imagenet" not in demo_trees(Limits())
