"""Every kind of data set gives class indices by the names of its own labels."""

from __future__ import annotations

import datasets as hf
import numpy as np
import pytest
import torch
from labelled_sets import CLASS_SET, REVERSED, TRUE, Torchvision, numbered, seen
from PIL import Image
from tiny_data import CLASSES, make_images
from torch.utils.data import ChainDataset, ConcatDataset, DataLoader, Subset, random_split

from hf_hierrobust.data import (
    ClassSet,
    ImageStream,
    ImageView,
    LabelRangeError,
    MissingColumnError,
    PixelCollator,
    PixelDataset,
    PixelStream,
    UnmatchedLabelError,
    UnnamedLabelsError,
    as_images,
    check_numbering,
    class_set_of,
)


def unnamed(order=CLASSES) -> hf.Dataset:
    return numbered(list(order)).cast_column("label", hf.Value("int64"))


KINDS = {
    "datasets": lambda: numbered(REVERSED),
    "pixel dataset": lambda: PixelDataset(numbered(REVERSED)),
    "preloaded": lambda: PixelDataset(numbered(REVERSED), preload=False),
    "subset of datasets": lambda: Subset(numbered(REVERSED), [7, 0, 3]),
    "random split": lambda: random_split(PixelDataset(numbered(REVERSED)), [5, 3])[0],
    "split of a split": lambda: Subset(random_split(PixelDataset(numbered(REVERSED)), [5, 3])[0], [1, 4]),
    "one order concatenated": lambda: ConcatDataset([PixelDataset(numbered(REVERSED))] * 2),
    "two orders concatenated": lambda: ConcatDataset(
        [
            PixelDataset(numbered(REVERSED)),
            Subset(numbered(["dog", "rose", "cat", "oak"]), [3, 1]),
            numbered(list(CLASSES)),
        ]
    ),
    "a view of other classes": lambda: as_images(
        numbered(REVERSED), ClassSet.from_names(["rose", "cat", "oak", "dog"])
    ),
    "other capitals": lambda: numbered(REVERSED, str.upper),
    "underscores": lambda: numbered(REVERSED, lambda name: f" {name}_"),
    "text": lambda: (
        numbered(REVERSED)
        .cast_column("label", hf.Value("string"))
        .map(lambda row: {"label": REVERSED[int(row["label"])]})
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kind01_labels_go_by_name_in(kind):
    view = as_images(KINDS[kind](), CLASS_SET)
    assert (
        isinstance(view, ImageView)
        and view.labelled
        and view.numbering == ("classes" if kind == "text" else "own")
    )
    assert seen(view) and as_images(view, CLASS_SET) is view
    batch = PixelCollator()([view[i] for i in range(len(view))])
    assert batch["labels"].tolist() == view.labels.tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_kind01_labels_go_by_name_in_streams(workers):
    first, second = numbered(REVERSED), numbered(["dog", "rose", "cat", "oak"])
    chain = ChainDataset(
        [PixelStream(first.to_iterable_dataset()), PixelStream(second.to_iterable_dataset())]
    )
    for data, expected in (
        (first.to_iterable_dataset(), TRUE),
        (PixelStream(first.to_iterable_dataset()), TRUE),
        (chain, TRUE * 2),
    ):
        stream = as_images(data, CLASS_SET)
        assert isinstance(stream, ImageStream) and stream.numbering == "own"
        loader = DataLoader(stream, batch_size=4, collate_fn=PixelCollator(), num_workers=workers)
        found = torch.cat([batch["labels"] for batch in loader]).tolist()
        assert sorted(found) == sorted(expected) and (workers or found == expected)


def test_kind01_text_labels_of_a_stream_are_found_as_they_come():
    data = KINDS["text"]().to_iterable_dataset()
    for class_set in (CLASS_SET, class_set_of(numbered(REVERSED))):
        stream = as_images(data, class_set)
        assert [class_set.class_names[item["label"]] for item in stream] == [CLASSES[y] for y in TRUE]
    with pytest.raises(UnmatchedLabelError, match="'cat' is unknown"):
        list(as_images(data, ClassSet.from_names(["dog", "birch"])))
    with pytest.raises(UnnamedLabelsError, match=r"row 0 of it has the text label 'cat'.*give class_set"):
        list(as_images(data, name="it"))


def test_kind01_a_part_of_the_classes_keeps_its_meaning():
    """The ids of a file that lacks classes are places among the names it has."""
    some = numbered(REVERSED).filter(lambda row: row["label"] in (0, 2))  # rose, dog
    some = some.cast_column("label", hf.Value("string")).map(lambda r: {"label": REVERSED[int(r["label"])]})
    assert set(seen(as_images(some, CLASS_SET))) == {1, 3}


def test_kind01_numbers_beside_names_are_refused():
    """Nothing tells that numbers without names follow the order of another data set's names."""
    inferred = class_set_of(numbered(REVERSED), name="train")
    assert inferred.class_names == tuple(REVERSED)
    with pytest.raises(
        UnnamedLabelsError, match=r"labels of test are numbers without names.*'train'.*ClassLabel"
    ):
        as_images(unnamed(), inferred, name="test")
    # a class set that the caller wrote states the order of the numbers ...
    view = as_images(unnamed(), CLASS_SET, name="test")
    assert view.labels.tolist() == TRUE and view.numbering == "unnamed"
    check_numbering({"train": as_images(numbered(list(CLASSES)), CLASS_SET), "test": view})
    # ... unless other data, whose names tell, do not follow it
    with pytest.raises(
        UnnamedLabelsError, match=r"test numbers its labels without names, while train .* another"
    ):
        check_numbering({"train": as_images(numbered(REVERSED), CLASS_SET), "test": view})
    with pytest.raises(
        UnnamedLabelsError, match=r"part 1 of both numbers its labels without names, while part 0"
    ):
        as_images(ConcatDataset([numbered(REVERSED), unnamed()]), CLASS_SET, name="both")
    with pytest.raises(UnnamedLabelsError, match="part 1 of both numbers its labels without names"):
        class_set_of(ConcatDataset([numbered(REVERSED), unnamed()]), name="both")
    with pytest.raises(UnnamedLabelsError, match="labels of it have no names: give class_set"):
        class_set_of(unnamed(), name="it")


def test_kind01_names_that_fit_no_class_are_refused():
    with pytest.raises(UnmatchedLabelError, match="'birch' is unknown"):
        as_images(numbered(REVERSED, lambda name: name.replace("oak", "birch")), CLASS_SET)


def test_kind01_classes_of_several_parts_are_joined_by_name():
    both = ConcatDataset([numbered(list(CLASSES)), numbered(REVERSED, str.title)])
    assert class_set_of(both).class_names == CLASSES
    assert seen(as_images(both)) == TRUE * 2
    parts = [numbered(["cat", "dog", "oak", "rose", "elm"]), numbered([*REVERSED, "fir"])]
    assert class_set_of(ConcatDataset(parts)).class_names == (*CLASSES, "elm", "fir")


@pytest.mark.parametrize("targets", [True, False])
def test_kind01_foreign_datasets_of_pairs(targets):
    assert seen(as_images(Subset(Torchvision(targets), [5, 1]), CLASS_SET)) == [1, 1]
    assert class_set_of(Torchvision()).class_names == tuple(REVERSED)


def test_labels_captions_and_rows_follow_a_selection():
    data = numbered(REVERSED).add_column("caption", [f"text {i}" for i in range(8)])
    view = as_images(Subset(data, [6, 2]), CLASS_SET)
    assert view.captions == ["text 6", "text 2"] and view[1]["caption"] == "text 2" and view[0]["row"] == 6
    chosen = view.select([1])
    assert chosen[0]["row"] == 2 and chosen.labels.tolist() == [2] and len(chosen) == 1
    joined = as_images(ConcatDataset([data, data.select([3])]), CLASS_SET)
    assert joined.captions[-1] == "text 3" == joined[8]["caption"]


def test_columns_of_other_names():
    data = numbered(REVERSED).rename_columns({"image": "photo", "label": "kind"})
    data = data.add_column("what", ["a", "b"] * 4).add_column("number", list(range(8)))
    view = as_images(data, CLASS_SET, label_column="kind", caption_column="what")
    assert (
        seen(view) == TRUE
        and view.captions[:2] == ["a", "b"]
        and set(view[0]) == {"image", "label", "row", "caption"}
    )
    with pytest.raises(ValueError, match="label_column has no effect on it, a PixelDataset"):
        as_images(PixelDataset(numbered(REVERSED)), CLASS_SET, label_column="kind", name="it")
    with pytest.raises(ValueError, match="preload has no effect on it, a PixelDataset"):
        as_images(PixelDataset(numbered(REVERSED)), CLASS_SET, preload=True, name="it")


def test_unlabelled_data():
    bare = make_images(4).remove_columns("label")
    with pytest.raises(MissingColumnError, match="it has no column that is clearly the label"):
        as_images(bare, CLASS_SET, name="it")
    for view in (
        as_images(bare, CLASS_SET, labelled=None),
        as_images(PixelDataset(bare), CLASS_SET),
        as_images(make_images(4), CLASS_SET, labelled=False),
    ):
        assert not view.labelled and view.labels.tolist() == [-1] * 4 and "label" not in view[0]
        assert PixelCollator()([view[0]])["labels"].tolist() == [-1]
    stream = as_images(bare.to_iterable_dataset(), CLASS_SET, labelled=None)
    assert not stream.labelled and "label" not in next(iter(stream))
    with pytest.raises(MissingColumnError, match="some parts of it have labels and others have none"):
        as_images(ConcatDataset([make_images(4), bare]), CLASS_SET, labelled=None, name="it")


def test_what_is_no_data_set_is_refused():
    for wrong, words in (
        ("folder", r"got str \(load_images opens paths"),
        (hf.DatasetDict(train=make_images(4)), r"it is a DatasetDict; give one of its splits: it\['train'\]"),
        ({"image": []}, "got dict"),
        (3, "got int"),
    ):
        with pytest.raises(TypeError, match=words):
            as_images(wrong, CLASS_SET, name="it")
    with pytest.raises(TypeError, match=r"items of it must be .* or pairs"):
        as_images([Image.new("RGB", (4, 4))], CLASS_SET, name="it")


def test_a_transform_is_not_dropped_in_silence():
    with pytest.raises(ValueError, match=r"it has a transform .* not applied"):
        as_images(make_images(2).with_transform(lambda rows: rows), CLASS_SET, name="it")
    assert len(as_images(make_images(2).with_format("torch"), CLASS_SET)) == 2


@pytest.mark.parametrize("label", [4, -1, None, 1.5])
def test_kind11_labels_that_are_no_class_are_refused(label):
    """-1 with a level map picked the last class."""
    items = [{"image": Image.new("RGB", (4, 4)), "label": value} for value in (0, 3, label)]
    for data in (items, ConcatDataset([items[:2], items[2:]])):
        with pytest.raises(LabelRangeError, match=r"row \d of it.* (label|number)"):
            as_images(data, CLASS_SET, name="it")


@pytest.mark.parametrize("dtype", ["int8", "int32", "uint8", "float32", "float64", "bool", "large_string"])
def test_kind15_labels_of_any_type(dtype):
    order = ["a", "b"]
    labels = [0, 1, 1, 0]
    stored = (
        [order[y] for y in labels]
        if dtype == "large_string"
        else [bool(y) if dtype == "bool" else y for y in labels]
    )
    data = make_images(4).remove_columns("label").add_column("label", stored, feature=hf.Value(dtype))
    assert as_images(data, ClassSet.from_names(order)).labels.tolist() == labels
    if dtype != "large_string":
        stream = as_images(data.to_iterable_dataset(), ClassSet.from_names(order))
        assert [item["label"] for item in stream] == labels


@pytest.mark.parametrize(
    "make", [np.int32, np.float32, torch.tensor, lambda y: np.array([y]), lambda y: torch.tensor(float(y))]
)
def test_kind15_items_with_labels_of_any_type(make):
    items = [{"image": Image.new("RGB", (4, 4)), "label": make(y)} for y in (0, 3)]
    assert PixelCollator()(items)["labels"].tolist() == [0, 3]
    assert as_images(items, CLASS_SET).labels.tolist() == [0, 3]


def test_kind15_labels_that_are_no_numbers_are_one_sentence():
    data = make_images(2).remove_columns("label")
    for stored, words in (
        ([0.5, 1], r"row 0 of it has label 0\.5"),
        ([1, float("nan")], "row 1 of it has no label"),
    ):
        with pytest.raises(LabelRangeError, match=words):
            as_images(data.add_column("label", stored), CLASS_SET, name="it")
    with pytest.raises(LabelRangeError, match=r"row 0 has label \[1, 2\]"):
        PixelCollator()([{"image": Image.new("RGB", (4, 4)), "label": [1, 2]}])
