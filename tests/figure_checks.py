"""What tests of several figures look at."""

from __future__ import annotations

import numpy as np
from PIL import Image

from hf_hierrobust.reports.figure_io import MAX_PNG_BYTES


def check_png(path, size=None) -> np.ndarray:
    assert path.stat().st_size <= MAX_PNG_BYTES
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG" and (size is None or image.size == size)
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.std() > 5  # something is drawn
    return pixels


def texts_of(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def setting_of(figure) -> str:
    """The lines below the title, as one."""
    return " ".join(
        text.get_text().replace("\n", " ") for text in figure.texts if text.get_gid() == "setting"
    )
