import io

import datasets as hf
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hf_hierrobust.data import (
    ClassSet,
    EmptyDatasetError,
    LabelRangeError,
    MissingColumnError,
    as_images,
    first_n,
    holdout,
    label_array,
    label_names,
    load_images,
)

NAMES = ["cat", "dog", "owl"]


def picture(value: int) -> Image.Image:
    return Image.new("RGB", (6, 4), (value, 10, 20))


def make(n=9, image="image", label="label", names=NAMES) -> hf.Dataset:
    features = hf.Features({image: hf.Image(), label: hf.ClassLabel(names=names)})
    rows = {image: [picture(10 * i) for i in range(n)], label: [i % len(names) for i in range(n)]}
    return hf.Dataset.from_dict(rows, features=features)


@pytest.fixture
def parquet(tmp_path):
    path = tmp_path / "some.parquet"
    make().to_parquet(path)
    return path


@pytest.fixture
def image_folder(tmp_path):
    for index, name in enumerate(NAMES):
        folder = tmp_path / "pictures" / "train" / name
        folder.mkdir(parents=True)
        for k in range(3):
            picture(10 * (index + 3 * k)).save(folder / f"{k}.png")
    return tmp_path / "pictures"


@pytest.fixture
def load(tmp_path):
    return lambda source, **options: load_images(source, cache_dir=str(tmp_path / "cache"), **options)


def reds(dataset) -> list[int]:
    return [example["image"].getpixel((0, 0))[0] for example in dataset]


def test_parquet_file_glob_list_and_folder_agree(parquet, load):
    expected = [10 * i for i in range(9)]
    (parquet.parent / "folder").mkdir()
    make().to_parquet(parquet.parent / "folder" / "test.parquet")
    for source in (
        parquet,
        str(parquet),
        [parquet],
        str(parquet.parent / "so*.parquet"),
        parquet.parent / "folder",
    ):
        dataset = load(source, split="test")
        assert reds(dataset) == expected and label_names(dataset) == NAMES
        assert label_array(dataset).tolist() == [i % 3 for i in range(9)]
        assert dataset[4]["row"] == 4
    assert reds(load([parquet, parquet])) == expected * 2


def test_split_slices(parquet, load):
    assert reds(load(parquet, split="train[3:5]")) == [30, 40]


def test_image_folder(image_folder, load):
    dataset = load(image_folder)
    assert label_names(dataset) == NAMES and len(dataset) == 9
    for example in dataset:
        assert example["image"].getpixel((0, 0))[0] // 10 % 3 == example["label"]
    with pytest.raises(ValueError, match=r"no split 'test', only 'train': name one of these, or hold out"):
        load(image_folder, split="test")


def test_save_to_disk_with_and_without_splits(tmp_path, load):
    make().save_to_disk(tmp_path / "one")
    hf.DatasetDict(train=make(), test=make(3)).save_to_disk(tmp_path / "two")
    assert reds(load(tmp_path / "one")) == [10 * i for i in range(9)]
    assert len(load(tmp_path / "two", split="test")) == 3
    with pytest.raises(ValueError, match=r"no split 'dev', only 'train', 'test'"):
        load(tmp_path / "two", split="dev")


@pytest.mark.parametrize("kind", ["parquet", "image_folder", "save_to_disk"])
def test_streaming_gives_the_same_rows(kind, parquet, image_folder, tmp_path, load):
    source = {"parquet": parquet, "image_folder": image_folder, "save_to_disk": tmp_path / "disk"}[kind]
    if kind == "save_to_disk":
        make().save_to_disk(source)
    stream = load(source, streaming=True)
    assert isinstance(stream, hf.IterableDataset) and label_names(stream) == NAMES
    assert reds(stream) == reds(load(source))
    assert len(list(load(source, streaming=True).take(2))) == 2


def test_usual_and_requested_column_names(tmp_path, load):
    make(image="img", label="fine_label").to_parquet(tmp_path / "a.parquet")
    assert load(tmp_path / "a.parquet").column_names == ["image", "label", "row"]
    two = make().add_column("coarse_label", [0, 1] * 4 + [1], feature=hf.ClassLabel(names=["x", "y"]))
    two.to_parquet(tmp_path / "b.parquet")
    assert label_names(load(tmp_path / "b.parquet")) == NAMES
    assert label_names(load(tmp_path / "b.parquet", label_column="coarse_label")) == ["x", "y"]


def test_label_column_is_found_by_name_before_type(tmp_path, load):
    plain = make().cast_column("label", hf.Value("int64"))
    coarse = plain.add_column("coarse_label", [0, 1] * 4 + [1], feature=hf.ClassLabel(names=["x", "y"]))
    coarse.to_parquet(tmp_path / "c.parquet")
    assert label_array(load(tmp_path / "c.parquet")).tolist() == [0, 1, 2] * 3
    make(label="species").add_column("category", ["a"] * 9).to_parquet(tmp_path / "s.parquet")
    assert label_names(load(tmp_path / "s.parquet")) == NAMES
    both = make(label="first").add_column("second", [0] * 9, feature=hf.ClassLabel(names=["x"]))
    both.to_parquet(tmp_path / "two.parquet")
    with pytest.raises(MissingColumnError, match="Set label_column"):
        load(tmp_path / "two.parquet")


@pytest.mark.parametrize("form", ["bytes", "struct", "path"])
def test_undeclared_image_columns_and_text_labels(form, tmp_path, load):
    cells = []
    for i in range(4):
        buffer = io.BytesIO()
        picture(10 * i).save(buffer, "PNG")
        (tmp_path / f"{i}.png").write_bytes(buffer.getvalue())
        forms = {"bytes": buffer.getvalue(), "path": str(tmp_path / f"{i}.png")}
        cells.append({"bytes": buffer.getvalue(), "path": None} if form == "struct" else forms[form])
    pd.DataFrame({"image": cells, "class": ["owl", "cat", "owl", "cat"]}).to_parquet(tmp_path / "p.parquet")
    dataset = load(tmp_path / "p.parquet")
    assert reds(dataset) == [0, 10, 20, 30]
    assert label_names(dataset) == ["cat", "owl"] and label_array(dataset).tolist() == [1, 0, 1, 0]
    stream = as_images(load(tmp_path / "p.parquet", streaming=True), ClassSet.from_names(["owl", "cat"]))
    assert [item["label"] for item in stream] == [0, 1, 0, 1]


def test_plain_integer_labels_have_no_names(tmp_path, load):
    make().cast_column("label", hf.Value("int16")).to_parquet(tmp_path / "i.parquet")
    dataset = load(tmp_path / "i.parquet")
    assert label_names(dataset) is None
    assert label_array(dataset).dtype == np.int64 and label_array(dataset).tolist() == [0, 1, 2] * 3


@pytest.mark.parametrize("streaming", [False, True])
def test_empty_dataset(tmp_path, load, streaming):
    make(0).to_parquet(tmp_path / "empty.parquet")
    with pytest.raises(EmptyDatasetError, match=r"empty\.parquet.* has no rows"):
        load(tmp_path / "empty.parquet", streaming=streaming)
    make(0).save_to_disk(tmp_path / "disk")
    with pytest.raises(EmptyDatasetError, match=r"disk.* has no rows"):
        load(tmp_path / "disk", streaming=streaming)


LISTS = hf.Features({"image": hf.Image(), "label": hf.List(hf.Value("int64"))})


def test_missing_columns_list_the_columns_and_name_the_option(tmp_path, load):
    make().rename_column("label", "weight").cast_column("weight", hf.Value("float32")).to_parquet(
        tmp_path / "l.parquet"
    )
    with pytest.raises(
        MissingColumnError, match=r"the label; its columns are image .*weight.*Set label_column"
    ):
        load(tmp_path / "l.parquet")
    lists = make().map(lambda row: {"label": [row["label"]]}, features=LISTS)
    lists.to_parquet(tmp_path / "n.parquet")
    with pytest.raises(MissingColumnError, match=r"label_column='label'.*type List"):
        load(tmp_path / "n.parquet", label_column="label")
    hf.Dataset.from_dict({"text": ["a"], "label": [0]}).to_parquet(tmp_path / "i.parquet")
    with pytest.raises(MissingColumnError, match=r"the image; its columns are text.*label.*Set image_column"):
        load(tmp_path / "i.parquet")
    with pytest.raises(MissingColumnError, match=r"image_column='img' is not a column.*\['text', 'label'\]"):
        load(tmp_path / "i.parquet", image_column="img")


def test_paths_that_lead_nowhere(tmp_path, load):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="matches no file"):
        load(str(tmp_path / "*.parquet"))
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"notes\.txt.*not a \.parquet, \.csv"):
        load(tmp_path / "notes.txt")
    with pytest.raises(ValueError, match="empty list"):
        load([])


def test_label_range_names_row_value_and_range(tmp_path, load):
    make().cast_column("label", hf.Value("int64")).to_parquet(tmp_path / "u.parquet")
    dataset, two = load(tmp_path / "u.parquet"), ClassSet.from_names(["a", "b"])
    as_images(dataset, ClassSet.from_names(NAMES))
    with pytest.raises(
        LabelRangeError, match=r"row 2 of u has label 2, outside the allowed range 0\.\.1 \(3 of 9"
    ):
        as_images(dataset, two, name="u")
    # after a selection the row is still the one of the source
    with pytest.raises(LabelRangeError, match="row 5 of u has label 2"):
        as_images(dataset.select([0, 4, 5]), two, name="u")
    stream = as_images(load(tmp_path / "u.parquet", streaming=True), two, name="u")
    with pytest.raises(LabelRangeError, match=r"row 2 of u\.parquet has label 2"):
        list(stream)


def test_unlabelled_rows_are_refused(tmp_path, load):
    make().cast_column("label", hf.Value("int64")).map(lambda row: {"label": -1}).to_parquet(
        tmp_path / "u.parquet"
    )
    with pytest.raises(LabelRangeError, match=r"row 0 of dataset has label -1.*unlabelled"):
        as_images(load(tmp_path / "u.parquet"), ClassSet.from_names(NAMES))
    rows = {"image": [picture(0), picture(1)], "label": ["cat", None]}
    features = hf.Features({"image": hf.Image(), "label": hf.Value("string")})
    hf.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "n.parquet")
    with pytest.raises(LabelRangeError, match=r"row 1 of .* has no label"):
        load(tmp_path / "n.parquet")


def test_first_n(parquet, load):
    assert first_n(load(parquet), 4)["row"][:] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="at least 1, got 0"):
        first_n(load(parquet), 0)


@pytest.mark.parametrize("size", [3, 5, 17, 27, 0.2])
def test_kind29_holdout_splits_one_source_honestly(size):
    """Nobody's image is in both parts, and both have the class proportions of the whole."""
    labels = [0] * 15 + [1] * 9 + [2] * 6
    dataset = hf.Dataset.from_dict({"image": [b""] * 30, "label": labels, "row": range(30)})
    rest, held = holdout(dataset, size, seed=3)
    count = 6 if size == 0.2 else size
    assert len(held) == count and sorted(rest["row"][:] + held["row"][:]) == list(range(30))
    quota = np.array([15, 9, 6]) * count / 30
    assert np.all(np.abs(np.bincount(label_array(held), minlength=3) - quota) < 1.01)
    assert (
        held["row"][:] == holdout(dataset, size, seed=3)[1]["row"][:] != holdout(dataset, size)[1]["row"][:]
    )
    bare, out = holdout(dataset.remove_columns("label"), size)
    assert len(out) == count and len(bare) == 30 - count


def test_kind29_impossible_holdouts_are_refused(parquet, load):
    dataset = load(parquet)
    for size in (9, 0, -1, 1.5, 0.0001):
        with pytest.raises(ValueError, match=rf"holdout={size} must be a fraction .* 1\.\.8, of 9"):
            holdout(dataset, size)
    with pytest.raises(ValueError, match="holdout=2 of 9 images in 3 classes cannot be stratified"):
        holdout(dataset, 2)
    with pytest.raises(TypeError, match="streaming=False"):
        holdout(load(parquet, streaming=True), 2)
