"""Every kind of source gives labelled images; none leads out of its own folder."""

from __future__ import annotations

import io
import json
import tarfile

import datasets as hf
import pytest
from PIL import Image
from source_files import CAPTIONS, check, listed, png

from hf_hierrobust.data import (
    ClassSet,
    MissingColumnError,
    PixelStream,
    SameSourceError,
    UnreadableImageError,
    as_images,
    check_sources_differ,
    class_set_of,
    load_images,
    mixed_sizes,
    shared_images,
    threat_space_for,
)


@pytest.mark.parametrize("column", ["file_name", "image", "path"])
@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_kind31_files_that_list_images_with_captions(folder, load, kind, column):
    path = listed(folder, kind, column)
    check(as_images(load(path, caption_column="caption")))
    check(as_images(load(path)), captions=False)
    stream = list(PixelStream(load(path, streaming=True, caption_column="caption")))
    assert [item["caption"] for item in stream] == CAPTIONS and [i["label"] for i in stream] == [0, 1, 0]
    assert len(load(path, split="train[1:]")) == 2


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_kind31_a_folder_with_metadata_and_captions(tmp_path, load, kind):
    folder = tmp_path / "pets" / "train"
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"{number}.png").write_bytes(png(10 * number))
    listed(folder, kind, paths=[f"{i}.png" for i in range(3)]).rename(folder / f"metadata.{kind}")
    check(as_images(load(tmp_path / "pets", caption_column="caption")))


def test_kind31_a_local_webdataset(tmp_path, load):
    with tarfile.open(tmp_path / "part.tar", "w") as tar:
        for number in range(3):
            for suffix, content in (
                ("png", png(10 * number)),
                ("cls", str(number % 2).encode()),
                ("txt", b"a text"),
            ):
                entry = tarfile.TarInfo(f"{number:04d}.{suffix}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    for streaming in (False, True):
        data = load(tmp_path / "part.tar", caption_column="txt", streaming=streaming)
        view = as_images(data, ClassSet.from_names(["cat", "dog"]))
        items = list(view) if streaming else [view[i] for i in range(3)]
        assert [item["label"] for item in items] == [0, 1, 0] and items[0]["caption"] == "a text"


def test_kind31_training_and_evaluation_from_different_kinds_of_source(folder, tmp_path, load):
    """A folder names its classes in another order and spelling than the parquet file."""
    for name in ("Dog", "Cat"):
        (tmp_path / "birds" / name).mkdir(parents=True)
        (tmp_path / "birds" / name / "0.png").write_bytes(png(len(name)))
    train = load(listed(folder, "parquet"))
    features = hf.Features({"image": hf.Image(), "label": hf.ClassLabel(names=["dog", "cat"])})
    rows = {"image": [{"bytes": png(1), "path": None}], "label": [1]}
    hf.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "test.parquet")
    class_set = class_set_of(train)
    assert as_images(load(tmp_path / "birds"), class_set).labels.tolist() == [0, 1]
    assert as_images(load(tmp_path / "test.parquet"), class_set).labels.tolist() == [0]


def test_kind31_a_folder_without_a_test_split_says_what_to_do(tmp_path, load):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "0.png").write_bytes(png(0))
    with pytest.raises(
        ValueError, match=r"no split 'test', only 'train': name one of these, or hold out .*holdout=0\.2"
    ):
        load(tmp_path, split="test")


def test_kind31_images_of_different_sizes_choose_the_models_space(tmp_path):
    def view(*sizes, streaming=False):
        rows = {"image": [{"bytes": png(0, size), "path": None} for size in sizes], "label": [0] * len(sizes)}
        features = hf.Features({"image": hf.Image(), "label": hf.ClassLabel(names=["cat"])})
        data = hf.Dataset.from_dict(rows, features=features)
        return as_images(data.to_iterable_dataset() if streaming else data, name="pets")

    same, other = view((4, 6), (4, 6)), view((4, 6), (4, 6), (6, 4))
    assert mixed_sizes(same) is None and threat_space_for(same, None, view((9, 9)))[0] == "native"
    for images in (other, view((4, 6), (6, 4), streaming=True), other.select([0, 2])):
        space, reason = threat_space_for(same, images)
        assert space == "model" and "differ in size: image 0 of pets is 4x6 and image" in reason
    assert threat_space_for(other)[1].startswith("threat_space='model' was chosen")
    assert threat_space_for(other, argument="space")[1].startswith("space='model' was chosen")


# ---- kind 19: paths and sizes ----


def test_kind15_a_column_of_lists_of_images_is_one_sentence(tmp_path, load):
    features = hf.Features({"images": hf.List(hf.Image()), "label": hf.ClassLabel(names=["cat"])})
    data = hf.Dataset.from_dict({"images": [[Image.new("RGB", (4, 4))] * 2], "label": [0]}, features=features)
    data.to_parquet(tmp_path / "p.parquet")
    words = "column 'images' of .* holds a list of images per row; one image per row is needed"
    for column in (None, "images"):
        with pytest.raises(MissingColumnError, match=words):
            as_images(data, image_column=column)
        with pytest.raises(MissingColumnError, match=words):
            load(tmp_path / "p.parquet", image_column=column)
    with pytest.raises(UnreadableImageError, match="it is a list of 2 images"):
        from hf_hierrobust.data import decode_image

        decode_image({"image": [Image.new("RGB", (4, 4))] * 2}, "row 0")


@pytest.mark.parametrize("names", [[1, 2], [None, "cat"], [b"cat"], [["cat"]]])
def test_kind15_class_names_that_are_no_strings_are_one_sentence(names, tmp_path):
    from hf_hierrobust.data import load_class_set

    with pytest.raises(ValueError, match=r"names\[0\] is .* class names are strings"):
        ClassSet.from_names(names)
    if not isinstance(names[0], bytes):
        (tmp_path / "classes.json").write_text(json.dumps({"class_names": names}))
        with pytest.raises(ValueError, match=r"class_names\[0\] is .*non-empty string"):
            load_class_set(tmp_path / "classes.json")


# ---- kind 29: shared images ----


def test_kind29_the_same_file_given_twice_is_refused(folder, tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"")
    (tmp_path / "b.parquet").write_bytes(b"")
    (tmp_path / "link.parquet").symlink_to(tmp_path / "a.parquet")
    a, b, link = (tmp_path / f"{name}.parquet" for name in ("a", "b", "link"))
    check_sources_differ(a, b)
    check_sources_differ(folder, folder)
    check_sources_differ("me/birds", "me/birds")
    check_sources_differ(a, a, "train[:80%]", "train[80%:]")
    for train, evaluation in (
        (a, a),
        (a, str(a)),
        (a, link),
        (str(tmp_path / "*.parquet"), b),
        ([a, b], a),
        (a, tmp_path / "x" / ".." / "a.parquet"),
    ):
        (tmp_path / "x").mkdir(exist_ok=True)
        with pytest.raises(
            SameSourceError, match=r"parquet' is given for training and for evaluation.*holdout=0\.2"
        ):
            check_sources_differ(train, evaluation)
    for same in (folder, "me/birds"):
        with pytest.raises(
            SameSourceError, match=r"\(split 'train'\) is given for training and for evaluation"
        ):
            check_sources_differ(same, same, "train", "train")


def test_kind29_shared_images_are_counted_by_their_pixels():
    def view(*images):
        features = hf.Features({"image": hf.Image(), "label": hf.ClassLabel(names=["cat"])})
        rows = {"image": [{"bytes": image, "path": None} for image in images], "label": [0] * len(images)}
        return as_images(hf.Dataset.from_dict(rows, features=features))

    bmp = io.BytesIO()
    Image.open(io.BytesIO(png(2))).save(bmp, "BMP")
    train = view(png(0), png(1), bmp.getvalue(), png(5, (8, 8)))
    assert shared_images(train, view(png(7), png(2), png(2), png(0, (8, 8)))) == 2
    assert shared_images(train, view(png(7))) == 0
    assert shared_images(train, train.select([1, 3])) == 2
    assert (
        shared_images(as_images([{"image": Image.new("RGB", (4, 4), (7,) * 3), "label": 0}]), view(png(7)))
        == 1
    )


def test_kind31_a_folder_that_holds_a_list_of_its_images(folder, load):
    """Paths are those of the list's folder, not of wherever the program was started."""
    path = listed(folder, "csv")
    check(as_images(load(path)), captions=False)
    (folder / "images" / "0.png").rename(folder / "0.png")
    for number in (1, 2):
        (folder / "images" / f"{number}.png").unlink()
    path.write_text("file_name,label\n0.png,cat\n")
    assert as_images(load(folder))[0]["image"].size == (4, 4)
    (folder / "1.png").write_bytes(png(1))
    (folder / "2.png").write_bytes(png(2))
    with pytest.raises(MissingColumnError, match=r"clearly the label.* It holds 'list\.csv': give that file"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "", r"a\.csv' is no readable csv file: No columns"),
        ("a.csv", "file_name,label\n", r"a\.csv' has no rows"),
        ("a.json", '{"a": ', r"a\.json' is no readable json file"),
        ("a.tar", "xx", r"a\.tar' is no readable tar file"),
        ("a.parquet", "xx", r"a\.parquet' is no readable parquet file"),
        ("a.csv", "file_name,label\nimages/0.png,cat\nimages/1.png,\n", r"row 1 of .*a\.csv.* has no label"),
        ("a.csv", "file_name\nimages/0.png\n", r"a\.csv.*no column that is clearly the label"),
    ],
)
def test_errors_about_data_are_one_line_that_names_the_file(folder, load, name, content, words):
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=words) as error:
        load(folder / name)
    assert "\n" not in str(error.value)


def test_kind26_data_that_are_nowhere_are_named(monkeypatch):
    monkeypatch.setattr(hf.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="source 'nobody/nothing' is no file or folder here") as error:
        load_images("nobody/nothing")
    assert "\n" not in str(error.value)
