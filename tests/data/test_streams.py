"""Streams name the file and the true row of what is wrong, in whatever order they are read."""

from __future__ import annotations

import io

import datasets as hf
import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from hf_hierrobust.data import (
    ClassSet,
    LabelRangeError,
    PixelCollator,
    PixelStream,
    UnreadableImageError,
    as_images,
    load_images,
    shuffled_stream,
)

NAMES = ["cat", "dog"]


def png(grey: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (grey,) * 3).save(buffer, "PNG")
    return buffer.getvalue()


def write(folder, bad: dict | None = None, rows: int = 6, files: int = 5, label=lambda number: number % 2):
    """Parquet files; image r of file f has the grey level 10 f + r, or the bytes ``bad[f, r]``."""
    paths = []
    for number in range(files):
        cells = [
            {"bytes": (bad or {}).get((number, row), png(10 * number + row)), "path": None}
            for row in range(rows)
        ]
        features = hf.Features({"image": hf.Image(decode=False), "label": hf.Value("int64")})
        data = hf.Dataset.from_dict(
            {"image": cells, "label": [label(r) for r in range(rows)]}, features=features
        )
        paths.append(folder / f"part-{number}.parquet")
        data.cast_column("image", hf.Image()).to_parquet(paths[-1])
    return paths


def stream(paths, seed=0, buffer=3, **options):
    return PixelStream(shuffled_stream(load_images(paths, streaming=True, **options), seed, buffer))


@pytest.mark.parametrize("seed", range(4))
def test_kind14_a_damaged_image_of_a_shuffled_stream_is_named_by_file_and_row(tmp_path, seed):
    """The shuffled shards were counted as they came: row 4 of the third file was called row 22."""
    write(tmp_path, bad={(2, 4): b"no image"})
    for source in (str(tmp_path / "*.parquet"), sorted(tmp_path.glob("*.parquet"))):
        with pytest.raises(UnreadableImageError, match=r"row 4 of part-2\.parquet is not a readable image"):
            list(stream(source, seed))


@pytest.mark.parametrize("workers", [0, 2])
def test_kind14_every_image_of_a_shuffled_stream_knows_its_place(tmp_path, workers):
    shuffled = stream(write(tmp_path))
    loader = DataLoader(shuffled, batch_size=None, num_workers=workers)
    found = []
    for item in loader:
        grey = np.asarray(item["image"])[0, 0, 0]
        number = int(item["file"].removeprefix("part-").removesuffix(".parquet"))
        assert grey == 10 * number + item["row"] and item["label"] == item["row"] % 2
        found.append(grey)
    assert sorted(found) == sorted(10 * f + r for f in range(5) for r in range(6)) != found
    batch = PixelCollator()([next(iter(shuffled))])
    assert set(batch) == {"pixels", "labels"}


def test_kind14_the_order_differs_between_epochs(tmp_path):
    shuffled, orders = stream(write(tmp_path)), []
    for epoch in (0, 1, 0):
        shuffled.set_epoch(epoch)
        orders.append([(item["file"], item["row"]) for item in shuffled])
    assert orders[0] == orders[2] != orders[1] and sorted(orders[0]) == sorted(orders[1])


def test_kind14_labels_and_captions_of_a_stream_are_named_likewise(tmp_path):
    paths = write(tmp_path, label=lambda row: 7 if row == 3 else 0, files=1)
    images = as_images(shuffled_stream(load_images(paths, streaming=True), 1, 9), ClassSet.from_names(NAMES))
    with pytest.raises(LabelRangeError, match=r"row 3 of part-0\.parquet has label 7, outside .* 0\.\.1\."):
        list(images)


def test_kind14_a_damaged_image_of_a_folder_is_named_by_its_path(tmp_path):
    for number in range(6):
        (tmp_path / "train" / NAMES[number % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "train" / NAMES[number % 2] / f"{number}.png").write_bytes(png(number))
    (tmp_path / "train" / "cat" / "2.png").write_bytes(b"no image")
    data = load_images(tmp_path, streaming=True, cache_dir=str(tmp_path / "cache"))
    with pytest.raises(UnreadableImageError, match=r"row 1 of source .* \(.*cat/2\.png\) is not a readable"):
        list(PixelStream(shuffled_stream(data, 0, 10)))


def test_files_of_other_columns_are_refused(tmp_path):
    paths = write(tmp_path, files=2)
    hf.Dataset.from_dict({"label": [1]}).to_parquet(paths[1])
    with pytest.raises(ValueError, match=r"part-1\.parquet' has the columns \['label'\], but .*part-0"):
        load_images(paths, streaming=True)
    paths[1].write_bytes(b"torn")
    for streaming in (False, True):
        with pytest.raises(ValueError, match=r"part-1\.parquet' is no readable parquet file"):
            load_images(paths, streaming=streaming, cache_dir=str(tmp_path / "cache"))
