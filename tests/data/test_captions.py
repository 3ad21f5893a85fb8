"""Captions from a text column to the batch."""

from __future__ import annotations

import io

import datasets as hf
import pytest
import torch
from PIL import Image

from hf_hierrobust.data import (
    EmptyCaptionError,
    MissingColumnError,
    PixelCollator,
    PixelDataset,
    PixelStream,
    load_images,
    shuffled_stream,
)

TEXTS = ["a red cat", "two dogs", "a cat asleep", "a dog in snow"]


def png(value: int) -> dict:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), (value, 0, 0)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def table(captions=TEXTS, **extra) -> hf.Dataset:
    columns = {
        "image": hf.Image(),
        "label": hf.ClassLabel(names=["cat", "dog"]),
        "sentence": hf.Value("string"),
        "url": hf.Value("string"),
        "tags": hf.Sequence(hf.Value("string")),
    }
    rows = {
        "image": [png(10 * i) for i in range(len(captions))],
        "label": [i % 2 for i in range(len(captions))],
        "sentence": captions,
        "url": [f"https://example.org/{i}" for i in range(len(captions))],
        "tags": [["x", "y"]] * len(captions),
    }
    return hf.Dataset.from_dict(rows | extra, features=hf.Features(columns))


@pytest.fixture
def load(tmp_path):
    def load(dataset=None, **options):
        path = tmp_path / "captioned.parquet"
        (table() if dataset is None else dataset).to_parquet(path)
        return load_images(path, cache_dir=str(tmp_path / "cache"), **options)

    return load


@pytest.mark.parametrize("preload", [False, True])
def test_captions_reach_the_batch_beside_their_images(load, preload):
    data = PixelDataset(load(caption_column="sentence"), preload=preload)
    assert data[2] | {"image": None} == {"image": None, "label": 0, "row": 2, "caption": "a cat asleep"}
    batch = PixelCollator()([data[i] for i in (3, 0)])
    assert batch["captions"] == ["a dog in snow", "a red cat"]
    assert batch["labels"].tolist() == [1, 0] and (batch["pixels"][0, 0] * 255).round().unique().item() == 30


def test_a_stream_carries_captions_through_shuffling(load):
    stream = PixelStream(shuffled_stream(load(caption_column="sentence", streaming=True), 0, 4))
    items = list(stream)
    assert sorted(item["row"] for item in items) == [0, 1, 2, 3]
    assert all(item["caption"] == TEXTS[item["row"]] for item in items)
    loader = torch.utils.data.DataLoader(stream, batch_size=3, collate_fn=PixelCollator())
    assert [len(batch["captions"]) for batch in loader] == [3, 1]


def test_captions_survive_selection_and_text_labels(load):
    dataset = table().cast_column("label", hf.Value("string"))
    chosen = load(dataset, caption_column="sentence").select([1, 2])
    assert [PixelDataset(chosen)[i]["caption"] for i in range(2)] == TEXTS[1:3]


@pytest.mark.parametrize("streaming", [False, True])
def test_nothing_changes_without_a_caption_column(load, streaming):
    dataset = load(streaming=streaming)
    assert "caption" not in dataset.column_names and "sentence" not in dataset.column_names
    items = list(PixelStream(dataset)) if streaming else [PixelDataset(dataset)[0]]
    assert items[0].keys() == {"image", "label", "row", *(("file",) if streaming else ())}
    assert PixelCollator()(items[:1]).keys() == {"pixels", "labels"}


def test_surrounding_blanks_are_stripped(load):
    assert PixelDataset(load(table([" a cat \n", "b"]), caption_column="sentence"))[0]["caption"] == "a cat"


@pytest.mark.parametrize("bad", [None, "", "  "])
def test_a_missing_caption_is_refused_by_row(load, bad):
    dataset = table(["a cat", bad, "a dog"])
    with pytest.raises(EmptyCaptionError, match=r"row 1 of pets has no caption"):
        PixelDataset(load(dataset, caption_column="sentence"), source="pets")
    with pytest.raises(EmptyCaptionError, match=r"row 1 of .*\.parquet has no caption.*class prompt"):
        list(PixelStream(load(dataset, caption_column="sentence", streaming=True)))


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("caption", r"caption_column='caption' is not a column.*'sentence'"),
        ("tags", r"caption_column='tags'.*one text per image.*dataset\.map"),
        ("label", r"caption_column='label'.*is its image or label column"),
    ],
)
def test_a_column_that_holds_no_captions_is_refused(load, column, words):
    with pytest.raises(MissingColumnError, match=words):
        load(caption_column=column)
