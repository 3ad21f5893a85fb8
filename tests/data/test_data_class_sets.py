import hashlib
import json

import datasets as hf
import pytest
import torch

from hf_hierrobust.data import (
    ClassSet,
    UnmatchedLabelError,
    available_class_sets,
    label_names,
    load_class_set,
    load_images,
)
from hf_hierrobust.hierarchy.checks import normalise

SIZES = {"imagenet": 1000, "cifar10": 10, "cifar100": 100, "tinyimagenet": 200, "caltech101": 101}


def test_the_builtin_sets_are_the_expected_ones():
    assert available_class_sets() == sorted(SIZES)


@pytest.mark.parametrize("name", sorted(SIZES))
def test_builtin_sets_load_with_source_and_the_size_of_their_dataset(name):
    classes = load_class_set(name)
    assert classes.name == name and len(classes) == SIZES[name]
    assert classes.source and classes.licence
    assert set(classes.duplicates) == set(classes.duplicate_names)
    assert classes.wnids is None or len(set(classes.wnids)) == len(classes)
    assert all(text == " ".join(text.split()) and "_" not in text for text in classes.class_names)


@pytest.mark.parametrize("name", sorted(SIZES))
def test_own_names_map_to_themselves(name):
    classes = load_class_set(name)
    assert torch.equal(classes.index_map(classes.class_names), torch.arange(len(classes)))
    if classes.wnids is not None:
        assert torch.equal(classes.index_map(classes.wnids[::-1]), torch.arange(len(classes)).flip(0))


def test_imagenet_keeps_and_flags_its_repeated_names():
    classes = load_class_set("imagenet")
    assert classes.duplicates == {"missile": (657, 744), "sunglasses": (836, 837)}
    assert classes.aliases["crane"] == (134, 517) and classes.aliases["maillot"] == (638, 639)
    assert classes.class_names[134] == "crane bird" and classes.class_names[517] == "construction crane"


def test_case_distinguishes_where_it_must():
    classes = load_class_set("imagenet")
    assert classes.index_map(["Cardigan", "cardigan"]).tolist() == [264, 474]


def test_a_shared_word_needs_position_or_wordnet_id():
    classes = load_class_set("imagenet")
    with pytest.raises(UnmatchedLabelError, match=r"'crane' fits classes \[134, 517\]"):
        classes.index_map(["crane"])
    assert classes.index_map(["n03126707"]).tolist() == [517]
    # the synonyms of a comma list narrow it down
    assert classes.index_map(["maillot, tank suit"]).tolist() == [639]


def test_kind01_position_decides_only_in_the_order_of_the_set():
    """In any other order the class at a label's position is a guess."""
    names = ("crane bird", "construction crane", "owl", "elk")
    classes = ClassSet("two", names, aliases={"crane": (0, 1)})
    # other labels leave one class
    assert classes.index_map(["owl", "crane", "crane bird"]).tolist() == [2, 1, 0]
    assert classes.index_map(["owl", "crane bird", "crane"]).tolist() == [2, 0, 1]
    # HF's own names of ImageNet have two cranes, in the order of the set
    assert classes.index_map(["crane", "crane", "owl", "elk"]).tolist() == [0, 1, 2, 3]
    with pytest.raises(UnmatchedLabelError, match="fits classes"):
        classes.index_map(["crane", "crane", "elk", "owl"])


def test_kind01_labels_of_one_class_are_merged_with_a_warning():
    with pytest.warns(UserWarning, match=r"2 labels share their class of 'two' .*\['Cat', 'cat'\]"):
        assert ClassSet.from_names(["cat", "dog"], name="two").index_map(["Cat", "dog", "cat"]).tolist() == [
            0,
            1,
            0,
        ]


def test_labels_outside_the_set_are_listed_with_the_nearest_names():
    with pytest.raises(UnmatchedLabelError) as error:
        load_class_set("cifar10").index_map(["cat", "airplain", "zebu"])
    message = str(error.value)
    assert "2 of 3" in message and "'cifar10'" in message
    assert "'airplain' is unknown, nearest: 'airplane'" in message and "'zebu'" in message
    assert "'cat'" not in message and "aliases" in message


def test_names_are_compared_in_one_form():
    assert normalise(" Shih-Tzu ") == normalise("shih_tzu") == "shih tzu"


def test_prompts_have_one_text_per_class_and_template():
    classes = ClassSet("c", ("cat", "dog"), ("a {}.", "one {} {{x}}"))
    assert classes.prompts() == [["a cat.", "one cat {{x}}"], ["a dog.", "one dog {{x}}"]]
    assert classes.prompts(["animal"]) == [["a animal.", "one animal {{x}}"]]


def test_templates_hash_follows_the_templates_only():
    first = ClassSet("a", ("cat",))
    assert first.templates_hash == ClassSet("b", ("dog",)).templates_hash
    assert first.templates_hash != ClassSet("a", ("cat",), ("a {}",)).templates_hash
    assert first.templates_hash == hashlib.sha256(b'["This is a photo of a {}."]').hexdigest()[:16]


def test_from_names_makes_prompt_names_and_keeps_the_given_ones():
    classes = ClassSet.from_names(["aquarium_fish", "cat"], name="mine", templates=["{}"])
    assert classes.class_names == ("aquarium fish", "cat") and classes.prompts() == [
        ["aquarium fish"],
        ["cat"],
    ]
    assert classes.index_map(["cat", "aquarium_fish"]).tolist() == [1, 0]


def test_json_file_round_trip(tmp_path):
    path = tmp_path / "birds.json"
    path.write_text(
        json.dumps({"class_names": ["jay", "owl"], "templates": "a {}", "aliases": {"bird 2": 1}})
    )
    classes = load_class_set(path)
    assert classes.name == "birds" and classes.templates == ("a {}",)
    assert classes.index_map(["bird_2"]).tolist() == [1]
    assert load_class_set(str(path)) == classes and load_class_set(classes) is classes


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"class_names": ()}, "no class_names"),
        ({"class_names": ("a", " ")}, r"class_names\[1\]"),
        ({"class_names": ("a", "b", "a")}, r"repeats class names \{'a': \(0, 2\)\}"),
        ({"class_names": ("a",), "templates": ()}, "no templates"),
        ({"class_names": ("a",), "templates": ("no slot",)}, "'no slot' must contain"),
        ({"class_names": ("a",), "aliases": {"x": 1}}, r"alias 'x' points to 1, outside 0\.\.0"),
        ({"class_names": ("a",), "wnids": ("n1", "n2")}, "2 wnids for 1 classes"),
    ],
)
def test_bad_fields_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        ClassSet("bad", **fields)


def test_bad_specs_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"'cifar11' is not built in; choose one of .*cifar10"):
        load_class_set("cifar11")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json"):
        load_class_set(tmp_path / "nowhere.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ValueError, match=r"broken\.json is not JSON"):
        load_class_set(tmp_path / "broken.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match="'class_names'"):
        load_class_set(tmp_path / "list.json")
    (tmp_path / "typo.json").write_text('{"class_names": ["a"], "template": ["{}"]}')
    with pytest.raises(ValueError, match=r"unknown keys \['template'\]"):
        load_class_set(tmp_path / "typo.json")


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "tinyimagenet", "caltech101"])
def test_real_label_names_map_in_order(shared_dir, tmp_path, name):
    path = shared_dir / "data" / name / "test.parquet"
    names = label_names(load_images(path, split="test", streaming=True, cache_dir=str(tmp_path)))
    assert torch.equal(load_class_set(name).index_map(names), torch.arange(len(names)))


def test_tiny_imagenet_wordnet_ids_agree_with_imagenet(shared_dir):
    tiny = load_class_set("tinyimagenet")
    path = shared_dir / "data" / "tinyimagenet" / "test.parquet"
    rows = hf.load_dataset("parquet", data_files=str(path), split="train", streaming=True)
    seen = {row["label"]: row["wnid"] for row in rows.select_columns(["label", "wnid"]).take(400)}
    assert all(tiny.wnids[label] == wnid for label, wnid in seen.items()) and len(seen) == 200
