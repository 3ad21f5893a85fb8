"""Small image files and lists of them on disk, for tests of data sources."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hf_hierrobust.data import (
    load_images,
)

CAPTIONS = ["a cat, asleep", "a dog", "the same cat"]
LABELS = ["cat", "dog", "cat"]


def png(grey: int, size=(4, 4)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (grey,) * 3).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def load(tmp_path):
    return lambda source, **options: load_images(source, cache_dir=str(tmp_path / "cache"), **options)


@pytest.fixture
def folder(tmp_path):
    """Three images in ``pets/images``."""
    (tmp_path / "pets" / "images").mkdir(parents=True)
    for number in range(3):
        (tmp_path / "pets" / "images" / f"{number}.png").write_bytes(png(10 * number))
    return tmp_path / "pets"


def listed(folder, kind: str, column="file_name", paths=None, **more):
    """A file that names the images of ``folder``."""
    paths = [f"images/{i}.png" for i in range(3)] if paths is None else paths
    table = pd.DataFrame(
        {column: paths, "label": LABELS[: len(paths)], "caption": CAPTIONS[: len(paths)], **more}
    )
    path = folder / f"list.{kind}"
    if kind == "parquet":
        table.to_parquet(path)
    elif kind == "json":
        table.to_json(path, orient="records")
    elif kind == "jsonl":
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    return path


def check(view, captions=True):
    assert [np.asarray(view[i]["image"])[0, 0, 0] for i in range(3)] == [0, 10, 20]
    assert view.labels.tolist() == [0, 1, 0] and view.class_set.class_names == ("cat", "dog")
    assert view.captions == (CAPTIONS if captions else None)


# ---- kind 31: sources ----
