"""What all figures share: colours, creation without pyplot, and saving below a size limit."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PNG_BYTES = 200_000
# Okabe-Ito colours, told apart under the common colour blindnesses.
BLUE, SKY, ORANGE, VERMILLION = "#0072B2", "#56B4E9", "#E69F00", "#D55E00"
GREEN, PURPLE, INK, FAINT = "#009E73", "#CC79A7", "#222222", "#DDDDDD"


def new_figure(width: float, height: float) -> Figure:
    """Empty figure of a size in inches, on the Agg canvas and unknown to pyplot.

    Raises:
        ImportError: matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('Figures need matplotlib: pip install "hf_hierrobust[plots]".') from error
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save_png(figure: Figure, path: str | Path | None, max_bytes: int = MAX_PNG_BYTES) -> Figure:
    """Write the figure as PNG, at the finest of several qualities that fits `max_bytes`; None writes nothing.

    Raises:
        ValueError: it does not fit even at 60 dpi and 64 colours.
    """
    if path is None:
        return figure
    from PIL import Image

    # A palette shifts the colours of small marks, so charts rather lose resolution; photographs need one, as
    # their noise does not compress.
    full, palette = ((150, None), (120, None), (100, None)), ((120, 256), (100, 256), (80, 256), (60, 64))
    rendered = {}
    for dpi, colors in full + palette:
        if dpi not in rendered:
            stream = io.BytesIO()
            figure.savefig(stream, format="png", dpi=dpi, metadata={"Software": None})
            rendered[dpi] = stream
        stream = rendered[dpi]
        if colors is not None:
            image = Image.open(stream).convert("RGB").quantize(colors)
            stream = io.BytesIO()
            image.save(stream, format="png", optimize=True, dpi=(dpi, dpi))
        if len(stream.getvalue()) <= max_bytes:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(stream.getvalue())
            return figure
    raise ValueError(
        f"{Path(path).name} needs {len(stream.getvalue())} bytes, above {max_bytes}; show fewer panels."
    )


def clean_frame(axes: Axes) -> None:
    """Drop the upper and right frame lines and set legible ticks."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=10)
    axes.set_axisbelow(True)
