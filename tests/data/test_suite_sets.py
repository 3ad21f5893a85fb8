"""The files of the zero-shot suite: counts of the papers, names in label order, prompts as rewritten."""

from __future__ import annotations

import io
import json
import tarfile

import datasets
import numpy as np
import pytest
from PIL import Image

from hf_hierrobust.data import UnmatchedLabelError, UnnamedLabelsError, as_images, label_names
from hf_hierrobust.data.suite import NAMES_FILE, available_suite, load_suite_set
from hf_hierrobust.hierarchy import available_trees, load_forest

# Classes and evaluation images of the papers (AGFT, TeCoA, TGA-ZSR).
COUNTS = {
    "caltech101": (101, 8677),
    "caltech256": (257, 30607),
    "cifar10": (10, 10000),
    "cifar100": (100, 10000),
    "dtd": (47, 1880),
    "eurosat": (10, 27000),
    "fgvc-aircraft": (100, 3333),
    "flowers102": (102, 6149),
    "food101": (101, 25250),
    "imagenet": (1000, 50000),
    "pets": (37, 3669),
    "pcam": (2, 32768),
    "stanford-cars": (196, 8041),
    "stl10": (10, 8000),
    "sun397": (397, 108754),
    "country211": (211, 21100),
    "tinyimagenet": (200, 10000),
}
PROMPTS = {
    ("eurosat", 3): "A centered satellite photo of a highway or a road.",
    ("eurosat", 9): "A centered satellite photo of a sea or a lake.",
    ("pcam", 0): "This is a photo of healthy lymph node tissue.",
    ("pcam", 1): "This is a photo of lymph node tumor tissue.",
    ("dtd", 30): "A surface with a polka-dotted texture.",
    ("country211", 0): "A photo I took in Andorra.",
    ("flowers102", 0): "A photo of a pink primrose, a type of flower.",
    ("pets", 36): "A photo of a Yorkshire Terrier, a type of pet.",
    ("stl10", 2): "This is a photo of a car.",
    ("cifar10", 0): "This is a photo of a airplane.",
    ("imagenet", 0): "This is a photo of a tench.",
    ("caltech101", 36): "A photo of a person.",
    ("caltech101", 37): "A photo of a person.",
}


def picture(grey: int) -> Image.Image:
    return Image.fromarray(np.full((8, 8, 3), grey, dtype=np.uint8))


def dataset(names, labels, column="label", numbers=False):
    feature = datasets.Value("int64") if numbers else datasets.ClassLabel(names=list(names))
    features = datasets.Features({"image": datasets.Image(), column: feature})
    rows = {"image": [picture(20 * i) for i in range(len(labels))], column: labels}
    return datasets.Dataset.from_dict(rows, features=features)


def test_the_suite_has_the_seventeen_sets_with_their_counts():
    assert available_suite() == sorted(COUNTS)
    for name, (classes, images) in COUNTS.items():
        one = load_suite_set(name)
        assert (one.name, one.num_classes, one.num_images) == (name, classes, images)
        assert one.metric == "top-1 accuracy" and "/" in one.hub_id and one.hub_id_known and one.split
        assert len(one.templates) == 1 and one.templates[0].endswith(".") and one.names_from
        if one.tree is not None:
            assert one.tree in available_trees()
            assert len(load_forest(one.tree, one.classes(None).class_names)[0].leaves) == classes


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_names_are_given_in_label_order_or_read_from_the_data(name):
    one = load_suite_set(name)
    if one.class_set is None and one.class_names is None:
        with pytest.raises(UnnamedLabelsError, match="read from the data"):
            one.classes(None)
        assert one.names_from == "the data set's own label names"
        return
    classes = one.classes(None)
    assert len(classes) == one.num_classes
    prompts = classes.prompts()
    for (other, index), text in PROMPTS.items():
        if other == name:
            assert prompts[index] == [text]


@pytest.mark.parametrize(
    ("name", "given", "shown"),
    [
        ("fgvc-aircraft", "747-400", "Boeing 747-400"),
        ("fgvc-aircraft", "A320", "A320"),
        ("stanford-cars", "Acura RL Sedan 2012", "Acura RL Sedan"),
        ("stanford-cars", "2012 Acura RL Sedan", "Acura RL Sedan"),
        ("sun397", "/a/airplane_cabin", "airplane cabin"),
        ("sun397", "a/apartment_building/outdoor", "apartment building outdoor"),
        ("sun397", "abbey", "abbey"),
        ("caltech256", "253.faces-easy-101", "faces easy"),
        ("caltech256", "002.american-flag", "american flag"),
        ("food101", "baby_back_ribs", "baby back ribs"),
    ],
)
def test_names_of_the_data_are_rewritten_for_prompts(name, given, shown):
    one = load_suite_set(name)
    names = [given, *(f"other {i}" for i in range(one.num_classes - 1))]
    classes = one.classes(names)
    assert classes.class_names[0] == shown and int(classes.index_map([given])[0]) == 0


def test_cars_that_only_their_year_told_apart_are_declared_twins():
    one = load_suite_set("stanford-cars")
    names = ["Audi S4 Sedan 2012", "Audi S4 Sedan 2007", *(f"car {i}" for i in range(194))]
    classes = one.classes(names)
    assert classes.class_names[:2] == ("Audi S4 Sedan",) * 2 and classes.duplicate_names == ("Audi S4 Sedan",)
    assert classes.index_map(names[:2]).tolist() == [0, 1]


def test_another_number_of_classes_is_another_data_set():
    with pytest.raises(ValueError, match="food101 has 101 classes, the data name 3"):
        load_suite_set("food101").classes(["a", "b", "c"])


def test_a_local_copy_in_another_order_and_with_other_columns(tmp_path):
    """Labels go by name: the copy numbers them backwards."""
    names = list(load_suite_set("stl10").class_names)
    path = tmp_path / "test.parquet"
    dataset(names[::-1], [0, 9, 4], column="label").to_parquet(str(path))
    images, classes, split = load_suite_set("stl10").open(path)
    assert as_images(images, classes).labels.tolist() == [9, 0, 5] and split == "test"


def test_numbers_without_names_follow_the_order_of_the_hub(tmp_path):
    path = tmp_path / "test.parquet"
    dataset((), [3, 0], column="cls", numbers=True).to_parquet(str(path))
    images, classes, _ = load_suite_set("stl10").open(path)
    assert as_images(images, classes).labels.tolist() == [3, 0]
    with pytest.raises(UnnamedLabelsError, match=NAMES_FILE):
        load_suite_set("food101").open(path)


def test_an_image_folder_and_the_classes_that_are_left_out(tmp_path):
    for folder, grey in (("BACKGROUND_Google", 0), ("Faces", 40), ("accordion", 80)):
        (tmp_path / "test" / folder).mkdir(parents=True)
        picture(grey).save(tmp_path / "test" / folder / "a.png")
    images, classes, split = load_suite_set("caltech101").open(tmp_path)
    assert split == "test" and label_names(images) == ["Faces", "accordion"]
    assert as_images(images, classes).labels.tolist() == [36, 0]


def tar(path, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for number, label in enumerate(labels):
            stream = io.BytesIO()
            picture(20 * number).save(stream, format="WEBP", lossless=True)
            for ending, data in (("cls", str(label).encode()), ("webp", stream.getvalue())):
                info = tarfile.TarInfo(f"{number:04}.{ending}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


def test_webdataset_tars_with_their_names_beside_them(tmp_path):
    """As the clip-benchmark data sets are laid out."""
    one = load_suite_set("food101")
    tar(tmp_path / "test/0.tar", [2, 0, 100])
    names = [f"dish_{i}" for i in range(101)]
    (tmp_path / NAMES_FILE).write_text("\n".join(names))
    for source in (tmp_path / "test/0.tar", tmp_path / "test/*.tar", tmp_path):
        images, classes, _ = one.open(source)
        assert as_images(images, classes).labels.tolist() == [2, 0, 100]
        assert classes.class_names[100] == "dish 100"
    (tmp_path / NAMES_FILE).write_text("\n".join(names[:50]))
    with pytest.raises(ValueError, match="50 names, 50 of them different, for labels up to 100"):
        one.open(tmp_path / "test/0.tar")


def test_wrong_sources_and_files_are_named(tmp_path):
    one = load_suite_set("stl10")
    with pytest.raises(FileNotFoundError, match=r"stl10: .*does not exist; or name a local copy: stl10=path"):
        one.open(tmp_path / "gone.parquet")
    path = tmp_path / "test.parquet"
    dataset(("airplane", "submarine"), [0, 1]).to_parquet(str(path))
    with pytest.raises(UnmatchedLabelError, match="'submarine' is unknown"):
        images, classes, _ = one.open(path)
        as_images(images, classes)
    with pytest.raises(ValueError, match="did you mean 'cifar10'"):
        load_suite_set("cifr10")
    entries = json.loads((tmp_path / "x.json").write_text("{}") and "{}")
    for change, says in (
        (entries, "is no suite set"),
        ({"unknown": 1}, "a suite set has no"),
    ):
        (tmp_path / "x.json").write_text(json.dumps(change))
        with pytest.raises(ValueError, match=says):
            load_suite_set(tmp_path / "x.json")
