"""Paths in data lead nowhere but into the data's own folder; hostile images and names meet limits."""

from __future__ import annotations

import datasets as hf
import pandas as pd
import pytest
from source_files import check, listed, png

from hf_hierrobust.data import (
    ImagePathError,
    PixelDataset,
    PixelStream,
    UnreadableImageError,
    as_images,
)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("../secret.png", "outside its folder"),
        ("{outside}/secret.png", "outside its folder"),
        ("images/../../secret.png", "outside its folder"),
        ("images/link.png", "outside its folder"),
        ("link/secret.png", "outside its folder"),
        ("http://127.0.0.1:9/x.png", "on a network"),
        ("hf://datasets/a/b/x.png", "on a network"),
        ("file:///etc/x.png", "on a network"),
        ("zip://x.png::http://127.0.0.1:9/x.zip", "on a network"),
        ("images/9.png", "does not exist"),
    ],
)
def test_kind19_paths_are_followed_inside_the_datas_folder_only(folder, load, kind, path, words, streaming):
    outside = folder.parent
    (outside / "secret.png").write_bytes(png(99))
    (folder / "images" / "link.png").symlink_to(outside / "secret.png")
    (folder / "link").symlink_to(outside)
    file = listed(folder, kind, paths=["images/0.png", path.format(outside=outside)])
    with pytest.raises(ImagePathError, match=rf"row 1 of .*list\.{kind}' names the image .* {words}"):
        load(file, streaming=streaming)


@pytest.mark.parametrize("path", ["{outside}/secret.png", "http://127.0.0.1:9/x.png"])
def test_kind19_paths_beside_bytes_are_never_followed(folder, load, path):
    """A parquet file whose cells mostly hold bytes, and one a path."""
    (folder.parent / "secret.png").write_bytes(png(99))
    cells = [{"bytes": png(0), "path": "http://127.0.0.1:9/ok.png"}]
    cells.append({"bytes": None, "path": path.format(outside=folder.parent)})
    pd.DataFrame({"image": cells, "label": ["cat"] * 2}).to_parquet(folder / "mixed.parquet")
    words = "paths in a file are not followed"
    for dataset in (
        load(folder / "mixed.parquet"),
        hf.load_dataset(
            "parquet", data_files=str(folder / "mixed.parquet"), split="train", cache_dir=str(folder / "c")
        ),
    ):
        view = as_images(dataset, labelled=None)
        assert view[0]["image"].size == (4, 4)
        with pytest.raises(UnreadableImageError, match=rf"row 1 of .*{words}"):
            view[1]
        with pytest.raises(UnreadableImageError, match=words):
            view.size_of(1)
    with pytest.raises(UnreadableImageError, match=rf"row 1 of mixed\.parquet .*{words}"):
        list(PixelStream(load(folder / "mixed.parquet", streaming=True)))
    forged = hf.Dataset.from_dict({"image": cells, "label": [0, 0]})
    forged.info.builder_name = "imagefolder"
    forged.save_to_disk(str(folder / "saved"))
    with pytest.raises(UnreadableImageError, match=words):
        PixelDataset(load(folder / "saved"))[1]


def test_kind19_a_dataset_made_in_python_may_name_its_own_files(folder):
    paths = [str(folder / "images" / f"{i}.png") for i in range(3)]
    features = hf.Features({"image": hf.Image(), "label": hf.ClassLabel(names=["cat", "dog"])})
    data = hf.Dataset.from_dict({"image": paths, "label": [0, 1, 0]}, features=features)
    check(as_images(data), captions=False)
    with pytest.raises(UnreadableImageError, match="lies on a network"):
        as_images(
            hf.Dataset.from_dict({"image": ["https://127.0.0.1:9/x.png"], "label": [0]}, features=features)
        )[0]


def header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims a size."""
    data = bytearray(png(0))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    import zlib

    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((60_000, 60_000), "more pixels than the allowed"),
        ((12_000, 9_000), "more than the allowed"),
        ((1, 5_000), "200 times as long"),
    ],
)
def test_kind19_hostile_image_sizes_meet_limits_and_one_line(size, words):
    features = hf.Features({"image": hf.Image(), "label": hf.ClassLabel(names=["cat"])})
    data = hf.Dataset.from_dict(
        {"image": [{"bytes": header(*size), "path": None}], "label": [0]}, features=features
    )
    view = as_images(data, name="pets")
    for read in (lambda: view[0], lambda: view.size_of(0)):
        with pytest.raises(
            UnreadableImageError,
            match=rf"row 0 of pets is not a readable image: .*{words}",
        ) as error:
            read()
        assert "\n" not in str(error.value)


# ---- kind 15: lists of images ----


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"file_name": "9.png", "label": "cat"}', r"row 0 of source .*9\.png', which does not exist"),
        ('{"file_name": "../../x.png", "label": "cat"}', "Invalid metadata file_name"),
        ('{"file_name": "http://127.0.0.1:9/x.png", "label": "cat"}', "Invalid metadata file_name"),
        ('{"file_name": ', "cannot be opened: JSON parse error"),
    ],
)
def test_kind19_metadata_of_a_folder_names_its_own_images_only(tmp_path, load, line, words):
    (tmp_path / "m" / "train").mkdir(parents=True)
    (tmp_path / "m" / "train" / "0.png").write_bytes(png(0))
    (tmp_path / "x.png").write_bytes(png(0))
    (tmp_path / "m" / "train" / "metadata.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=words):
        load(tmp_path / "m")
