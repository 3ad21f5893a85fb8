"""A labelled image set that needs no download: symbols drawn from the fonts that matplotlib carries.

The set stands in for photographs in ``make demo`` and has a true three-level class tree (36 leaves,
9 superclasses, 3 top nodes; ``glyphs.json``). Each image is one symbol in a random pose and colour on a
textured background of moderate contrast, so that a model trained on clean images is accurate and still easy
to attack. Everything follows from ``(seed, split, index)``: image ``i`` is the same in every longer set.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PILImage, ImageDraw, ImageFont

from ..progress import say

GLYPHS_VERSION = 2
"""Raise when a change alters the pixels: it is part of the cache's file name."""

SPLITS = ("train", "validation", "test")
_FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSans-Oblique.ttf")
_OVERSAMPLING = 2
_MASK_SIZE = 96
_EM = 72


@lru_cache(maxsize=1)
def _glyph_tree() -> dict[str, dict[str, dict[str, str]]]:
    """``{top: {superclass: {leaf: characters}}}``; the characters are interchangeable shapes of the leaf."""
    return json.loads(Path(__file__).with_name("glyphs.json").read_text(encoding="utf-8"))


def glyph_class_names() -> list[str]:
    """Leaf names in label order: ``names[label]`` is the class of an image."""
    return list(glyph_paths())


def glyph_paths() -> dict[str, list[str]]:
    """``{leaf: [superclass, top]}`` in label order, from the leaf upwards."""
    return {
        leaf: [superclass, top]
        for top, superclasses in _glyph_tree().items()
        for superclass, leaves in superclasses.items()
        for leaf in leaves
    }


def _font_files() -> list[Path]:
    try:
        import matplotlib
        from matplotlib.ft2font import FT2Font
    except ImportError as error:
        raise ImportError(
            "the glyph images are drawn with the fonts of matplotlib: pip install 'hf_hierrobust[plots]'"
        ) from error
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    needed = {
        ord(char)
        for tops in _glyph_tree().values()
        for sup in tops.values()
        for char in "".join(sup.values())
    }
    files = []
    for name in _FONTS:
        path = folder / name
        # Linux distributions strip or replace the bundled fonts; a missing glyph would draw an empty box.
        if path.is_file() and needed <= FT2Font(str(path)).get_charmap().keys():
            files.append(path)
    if not files:
        raise RuntimeError(
            f"none of {', '.join(_FONTS)} in {folder} holds all the symbols needed; "
            "reinstall matplotlib from PyPI, whose wheels bundle complete DejaVu fonts"
        )
    return files


@lru_cache(maxsize=1)
def _glyph_masks() -> list[list[PILImage.Image]]:
    """Per label the masks of all its characters in all fonts, each centred and scaled to the same extent."""
    fonts = [
        ImageFont.truetype(str(path), 2 * _EM, layout_engine=ImageFont.Layout.BASIC) for path in _font_files()
    ]
    masks = []
    for superclasses in _glyph_tree().values():
        for leaves in superclasses.values():
            for characters in leaves.values():
                masks.append([_draw_mask(char, font) for char in characters for font in fonts])
    return masks


def _draw_mask(char: str, font: ImageFont.FreeTypeFont) -> PILImage.Image:
    left, top, right, bottom = font.getbbox(char)
    drawn = PILImage.new("L", (right - left, bottom - top))
    ImageDraw.Draw(drawn).text((-left, -top), char, fill=255, font=font)
    scale = _EM / max(drawn.size)
    drawn = drawn.resize([max(1, round(side * scale)) for side in drawn.size], PILImage.Resampling.LANCZOS)
    mask = PILImage.new("L", (_MASK_SIZE, _MASK_SIZE))
    mask.paste(drawn, ((_MASK_SIZE - drawn.width) // 2, (_MASK_SIZE - drawn.height) // 2))
    return mask


def _posed_coverage(mask: PILImage.Image, rng: np.random.Generator, size: int) -> np.ndarray:
    """``(size, size)`` coverage in [0, 1] of the symbol, rotated, scaled, sheared and shifted."""
    angle = np.deg2rad(rng.uniform(-12, 12))
    extent = rng.uniform(0.80, 0.95)
    shear = rng.uniform(-0.08, 0.08)
    shift = rng.uniform(-0.04, 0.04, size=2)
    canvas = size * _OVERSAMPLING
    # PIL wants the map from output to input coordinates; _EM mask pixels become `extent * canvas` pixels.
    ratio = _EM / (extent * canvas)
    cos, sin = np.cos(angle) * ratio, np.sin(angle) * ratio
    linear = np.array([[cos, sin + shear * cos], [-sin, cos - shear * sin]])
    offset = _MASK_SIZE / 2 - linear @ (canvas * (0.5 + shift))
    coefficients = (*linear[0], offset[0], *linear[1], offset[1])
    posed = mask.transform(
        (canvas, canvas), PILImage.Transform.AFFINE, coefficients, PILImage.Resampling.BILINEAR
    )
    return np.asarray(posed.reduce(_OVERSAMPLING), dtype=np.float32) / 255


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """``(size, size, 3)`` texture of mean about one half: a colour, smooth patches and pixel noise."""
    colour = rng.uniform(0.30, 0.70, size=3)
    patches = np.stack(
        [_stretch(rng.standard_normal((cells, cells)), size) for cells in (3, 6)], axis=-1
    ) @ rng.uniform(-0.04, 0.04, size=(2, 3))
    return colour + patches + rng.normal(0, 0.02, size=(size, size, 3))


def _stretch(field: np.ndarray, size: int) -> np.ndarray:
    image = PILImage.fromarray(field.astype(np.float32))
    return np.asarray(image.resize((size, size), PILImage.Resampling.BILINEAR))


def render_glyph(label: int, rng: np.random.Generator, size: int = 32) -> np.ndarray:
    """One image of class ``label``: ``(size, size, 3)`` uint8, all randomness from ``rng``."""
    variants = _glyph_masks()[label]
    coverage = _posed_coverage(variants[rng.integers(len(variants))], rng, size)[..., None]
    ground = _background(rng, size)
    # Always lighter than the ground, like chalk: of either polarity, the tiny model learns far more slowly
    # (30 % instead of 59 % leaf accuracy after three epochs).
    contrast = rng.uniform(0.30, 0.45)
    tint = rng.uniform(-0.12, 0.12, size=3)
    return (np.clip(ground + coverage * (contrast + tint), 0, 1) * 255 + 0.5).astype(np.uint8)


def glyph_dataset(
    split: str,
    *,
    num_images: int,
    seed: int = 0,
    size: int = 32,
    cache_dir: str | os.PathLike | None = None,
) -> Dataset:
    """Render a split, with columns ``image`` (:class:`datasets.Image`) and ``label`` (``ClassLabel``).

    Args:
        split: "train", "validation" or "test"; splits of one seed share no random state.
        num_images: number of images; image ``i`` has label ``i % 36``, so every prefix is balanced.
        seed: any non-negative integer.
        size: side in pixels, at least 16.
        cache_dir: where to keep the set, see :func:`glyph_parquet`; None renders anew, in memory.

    Raises:
        ValueError: unknown split, or a number out of range.
        ImportError: matplotlib (extra ``plots``) is missing.
    """
    if cache_dir is None:
        _check(split, num_images, seed, size)
        return _render(split, num_images, seed, size)
    file = glyph_parquet(split, num_images=num_images, seed=seed, size=size, cache_dir=cache_dir)
    return Dataset.from_parquet(str(file), cache_dir=str(file.parent / "arrow"))


def glyph_parquet(
    split: str, *, num_images: int, seed: int = 0, size: int = 32, cache_dir: str | os.PathLike
) -> Path:
    """The split as a parquet file in ``cache_dir``, rendered if it is not there yet.

    Arguments and errors as for :func:`glyph_dataset`. The file keeps the feature types, so that
    ``load_dataset("parquet", data_files=...)`` knows the class names.
    """
    _check(split, num_images, seed, size)
    file = Path(cache_dir) / f"glyphs-v{GLYPHS_VERSION}-{split}-n{num_images}-seed{seed}-px{size}.parquet"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        # Written aside and renamed: a run that is killed leaves no half file under the final name.
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".glyphs-") as aside:
            partial = Path(aside, file.name)
            say(f"rendering {num_images:,} images ({split})")
            _render(split, num_images, seed, size).to_parquet(str(partial))
            os.replace(partial, file)
    return file


def _check(split: str, num_images: int, seed: int, size: int) -> None:
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is unknown; choose one of {', '.join(SPLITS)}")
    for name, value, least in (("num_images", num_images, 1), ("seed", seed, 0), ("size", size, 16)):
        if value < least:
            raise ValueError(f"{name}={value} is too small; it must be at least {least}")


def _render(split: str, num_images: int, seed: int, size: int) -> Dataset:
    names = glyph_class_names()
    labels = [index % len(names) for index in range(num_images)]
    images = []
    for index, label in enumerate(labels):
        rng = np.random.default_rng((seed, SPLITS.index(split), index))
        stream = io.BytesIO()
        PILImage.fromarray(render_glyph(label, rng, size)).save(stream, format="PNG", compress_level=1)
        images.append({"bytes": stream.getvalue(), "path": None})
    features = Features({"image": Image(), "label": ClassLabel(names=names)})
    return Dataset.from_dict({"image": images, "label": labels}, features=features)
