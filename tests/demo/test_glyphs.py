"""The embedded image set: true tree, balance, determinism, cache."""

from __future__ import annotations

import sys
from collections import Counter

import numpy as np
import pytest
from datasets import load_dataset

from hf_hierrobust.demo import glyphs


def pixels(dataset) -> np.ndarray:
    return np.stack([np.asarray(image) for image in dataset["image"]])


def test_tree_has_three_levels_and_no_ambiguous_name():
    paths = glyphs.glyph_paths()
    superclasses = {path[0]: path[1] for path in paths.values()}
    assert (len(paths), len(superclasses), len(set(superclasses.values()))) == (36, 9, 3)
    assert all(superclasses[parent] == top for parent, top in paths.values()), "a superclass has two parents"
    names = [*paths, *superclasses, *set(superclasses.values())]
    assert len(set(names)) == len(names)
    assert set(Counter(path[0] for path in paths.values()).values()) == {4}


def test_no_symbol_belongs_to_two_classes():
    leaves = [
        chars for tops in glyphs._glyph_tree().values() for sup in tops.values() for chars in sup.values()
    ]
    symbols = "".join(leaves)
    assert len(set(symbols)) == len(symbols)


def test_every_symbol_is_drawn_and_none_as_the_empty_box():
    matplotlib = pytest.importorskip("matplotlib")
    from PIL import ImageFont

    font = ImageFont.truetype(
        f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf",
        2 * glyphs._EM,
        layout_engine=ImageFont.Layout.BASIC,
    )
    missing = np.asarray(glyphs._draw_mask("\U000e0fff", font), dtype=float)
    for masks in glyphs._glyph_masks():
        for mask in masks:
            drawn = np.asarray(mask, dtype=float)
            assert drawn.mean() > 5
            assert abs(drawn - missing).mean() > 5


def test_columns_names_and_balance():
    data = glyphs.glyph_dataset("train", num_images=72)
    assert data.features["label"].names == glyphs.glyph_class_names() == list(glyphs.glyph_paths())
    assert data["label"][:36] == list(range(36))
    assert set(Counter(data["label"]).values()) == {2}
    image = data[0]["image"]
    assert (image.size, image.mode) == ((32, 32), "RGB")


def test_same_seed_same_bytes_and_a_longer_set_only_adds():
    short, long = (glyphs.glyph_dataset("test", num_images=n, seed=3) for n in (20, 40))
    assert np.array_equal(pixels(short), pixels(long)[:20])


@pytest.mark.parametrize("other", [("train", 1), ("test", 0), ("validation", 0)])
def test_splits_and_seeds_share_no_image(other):
    base = pixels(glyphs.glyph_dataset("train", num_images=36, seed=0)).reshape(36, -1)
    split, seed = other
    different = pixels(glyphs.glyph_dataset(split, num_images=36, seed=seed)).reshape(36, -1)
    assert (base[:, None] != different[None]).mean(axis=-1).min() > 0.5


def test_size_and_contrast():
    data = pixels(glyphs.glyph_dataset("train", num_images=36, size=48))
    assert data.shape == (36, 48, 48, 3)
    # Moderate contrast: images are neither flat nor black and white.
    spread = data.reshape(36, -1).std(axis=1) / 255
    assert (spread > 0.03).all() and (spread < 0.25).all()
    assert (data == 0).mean() < 0.02


def test_cache_is_used_keyed_and_loadable_by_name(tmp_path, monkeypatch):
    arguments = {"num_images": 36, "seed": 1, "cache_dir": tmp_path}
    first = glyphs.glyph_dataset("train", **arguments)
    fresh = glyphs.glyph_dataset("train", num_images=36, seed=1)
    assert np.array_equal(pixels(first), pixels(fresh))
    other = glyphs.glyph_parquet("test", **arguments)

    def never(*_):
        raise AssertionError("rendered a set that is in the cache")

    monkeypatch.setattr(glyphs, "_render", never)
    again = glyphs.glyph_dataset("train", **arguments)
    assert again.features == fresh.features and np.array_equal(pixels(again), pixels(fresh))
    assert glyphs.glyph_parquet("test", **arguments) == other
    for changed in ({"seed": 2}, {"num_images": 37}, {"size": 40}):
        with pytest.raises(AssertionError, match="rendered"):
            glyphs.glyph_dataset("train", **(arguments | changed))

    loaded = load_dataset("parquet", data_files=str(other), split="train", cache_dir=str(tmp_path / "hf"))
    assert loaded.features["label"].names == glyphs.glyph_class_names()


def test_interrupted_rendering_leaves_no_file(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(glyphs, "_render", interrupted)
    with pytest.raises(KeyboardInterrupt):
        glyphs.glyph_parquet("train", num_images=36, cache_dir=tmp_path)
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "dev"}, "split='dev'.*train, validation, test"),
        ({"num_images": 0}, "num_images=0"),
        ({"seed": -1}, "seed=-1"),
        ({"size": 8}, "size=8.*at least 16"),
    ],
)
def test_bad_arguments(arguments, message):
    split, keywords = "train", {"num_images": 1} | arguments
    with pytest.raises(ValueError, match=message):
        glyphs.glyph_dataset(keywords.pop("split", split), **keywords)


def test_missing_matplotlib_names_the_extra(monkeypatch):
    glyphs._glyph_masks.cache_clear()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    try:
        with pytest.raises(ImportError, match=r"hf_hierrobust\[plots\]"):
            glyphs.glyph_dataset("train", num_images=1)
    finally:
        glyphs._glyph_masks.cache_clear()


def test_fonts_without_the_symbols_are_refused(monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(glyphs, "_FONTS", ("cmr10.ttf", "absent.ttf"))
    with pytest.raises(RuntimeError, match="reinstall matplotlib"):
        glyphs._font_files()
