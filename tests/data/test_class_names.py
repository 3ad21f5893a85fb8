"""Class sets read off a data set's own names: WordNet ids become words, odd names are warned about."""

from __future__ import annotations

import json
import warnings

import datasets as hf
import pytest
from PIL import Image

from hf_hierrobust.data import as_images, class_set_of, load_class_set, load_images


def named(names) -> hf.Dataset:
    features = hf.Features({"image": hf.Image(), "label": hf.ClassLabel(names=list(names))})
    images = [Image.new("RGB", (4, 4))] * len(names)
    return hf.Dataset.from_dict({"image": images, "label": list(range(len(names)))}, features=features)


def test_kind01_folders_named_by_wordnet_ids_become_words(tmp_path):
    """'a photo of a n01443537' cost 43 points of accuracy."""
    imagenet, tiny = load_class_set("imagenet"), load_class_set("tinyimagenet")
    for wnid in ("n01443537", "n02123045", "n03126707"):
        (tmp_path / "train" / wnid).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "train" / wnid / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load_images(tmp_path, cache_dir=str(tmp_path / "cache"))
        found = class_set_of(data, name="mine")
    assert found.class_names == ("goldfish", "tabby cat", "construction crane")
    assert found.wnids == ("n01443537", "n02123045", "n03126707")
    for known in (imagenet, tiny, found):
        if {"n01443537", "n02123045", "n03126707"} <= set(known.wnids):
            view = as_images(data, known)
            assert [known.wnids[label] for label in view.labels] == list(found.wnids)


def test_kind01_ids_with_a_name_behind_keep_the_better_name():
    names = ["n02085620-Chihuahua", "n01443537_gold_fish", "n99999999 Purple_Cow"]
    found = class_set_of(named(names))
    assert found.class_names == ("Chihuahua", "goldfish", "Purple Cow")
    assert as_images(named(names[::-1]), found).labels.tolist() == [2, 1, 0]


def test_kind01_unknown_ids_and_numbers_are_warned_about():
    with pytest.warns(
        UserWarning, match=r"1 of 2 classes of mine are WordNet ids .*'n99999999'.*a photo of a n9"
    ):
        assert class_set_of(named(["n99999999", "n01443537"]), name="mine").class_names[1] == "goldfish"
    with pytest.warns(
        UserWarning, match=r"3 of 3 classes of mine are named by numbers or signs, e\.g\. \['0'"
    ):
        class_set_of(named("012"), name="mine")


def test_every_known_id_has_one_name():
    imagenet = load_class_set("imagenet")
    found = class_set_of(named(imagenet.wnids))
    assert found.class_names == imagenet.class_names and found.duplicates.keys() == imagenet.duplicates.keys()


def test_an_inferred_set_remembers_that_it_is(tmp_path):
    found = class_set_of(named(["red_car", "dog"]), name="mine")
    assert found.inferred and found.class_names == ("red car", "dog") and found.name == "mine"
    assert not load_class_set("cifar10").inferred
    (tmp_path / "c.json").write_text(json.dumps({"class_names": ["a"], "inferred": True}))
    with pytest.raises(ValueError, match=r"unknown keys \['inferred'\]"):
        load_class_set(tmp_path / "c.json")
