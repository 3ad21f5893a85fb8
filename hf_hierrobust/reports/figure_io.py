"""What all figures share: colours, titles, names, creation without pyplot, and saving below a size limit."""

from __future__ import annotations

import functools
import io
import math
import textwrap
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from .markdown import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PNG_BYTES = 200_000
# Okabe-Ito colours, told apart under the common colour blindnesses.
BLUE, SKY, ORANGE, VERMILLION = "#0072B2", "#56B4E9", "#E69F00", "#D55E00"
GREEN, PURPLE, INK, FAINT = "#009E73", "#CC79A7", "#222222", "#DDDDDD"
COLORS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
"""In the order in which levels, terms and models take them."""
# matplotlib's own font lacks many scripts; those of these that are installed fill in.
FALLBACK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Zen Hei", "Microsoft YaHei",
    "PingFang SC", "Hiragino Sans GB", "Arial Unicode MS", "Noto Sans", "Noto Sans Devanagari", "FreeSans",
)  # fmt: skip


def drawn(plot: Callable) -> Callable:
    """A plotting function in which names are text: a ``$`` starts no formula, a missing glyph is a box.

    Raises:
        ImportError: matplotlib is missing.
    """

    @functools.wraps(plot)
    def plotting(*args, **kwargs):
        matplotlib = _matplotlib()
        names = {"text.parse_math": False, "text.usetex": False, "font.family": _fonts()}
        with matplotlib.rc_context(names), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            return plot(*args, **kwargs)

    return plotting


def undrawable(names: Iterable[str]) -> list[str]:
    """Names with characters that no installed font of the figures has; they would be drawn as boxes.

    Raises:
        ImportError: matplotlib is missing.
    """
    _matplotlib()
    from matplotlib import font_manager

    known = set()
    for family in _fonts():
        path = font_manager.findfont(font_manager.FontProperties(family=[family]))
        known |= set(font_manager.get_font(path).get_charmap())
    return [name for name in names if not known.issuperset(map(ord, plain(name)))]


def new_figure(width: float, height: float, title: str = "", setting: str = "") -> Figure:
    """Empty figure of a size in inches, on the Agg canvas and unknown to pyplot.

    Args:
        height: without the title, which is added above.
        setting: what the figure shows: model, data set, attack, space; wrapped below the title.

    Raises:
        ImportError: matplotlib is missing.
    """
    _matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = textwrap.wrap(plain(setting), max(20, int(14.5 * width)))
    above = 0.34 * bool(title) + 0.165 * len(lines) + 0.06
    figure = Figure(figsize=(width, height + above), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    total = height + above
    figure.get_layout_engine().set(rect=(0, 0, 1, height / total))
    left = 0.12 / width
    if title:
        figure.text(left, 1 - 0.09 / total, title, fontsize=13, fontweight="bold", va="top", gid="title")
    if lines:
        start = 1 - (0.09 + 0.29 * bool(title)) / total
        shown = "\n".join(lines)
        figure.text(left, start, shown, fontsize=9, color="#444444", va="top", gid="setting")
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


def save_png_and_svg(figure: Figure, stem: str | Path) -> list[Path]:
    """Write a figure as ``stem.png`` and ``stem.svg``; in the SVG text is drawn as outlines, for papers.

    Raises:
        ValueError: see `save_png`.
    """
    import matplotlib

    files = [Path(f"{stem}{suffix}") for suffix in (".png", ".svg")]
    save_png(figure, files[0])
    # The same figure gives the same bytes: no date, and ids that do not depend on memory addresses.
    with matplotlib.rc_context({"svg.hashsalt": "hf_hierrobust", "text.parse_math": False}):
        figure.savefig(files[1], format="svg", metadata={"Date": None, "Creator": None})
    return files


def clean_frame(axes: Axes) -> None:
    """Drop the upper and right frame lines and set legible ticks."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=10)
    axes.set_axisbelow(True)


def say_start(axes: Axes) -> None:
    """Let the y axis start at 0 or, where that would waste half of it, say where it starts."""
    (low, high), least = axes.get_ylim(), axes.dataLim.ymin
    if 0 < low < 0.5 * high or low < 0 <= least:
        axes.set_ylim(0, high)
    elif low > 0:
        axes.set_ylabel(f"{axes.get_ylabel()}\n(axis starts at {low:.3g})")


def integer_steps(axes: Axes) -> None:
    """Whole numbers only on the x axis."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))


def shortened(name: object, length: int = 32) -> str:
    """A name on one line, cut with an ellipsis."""
    text = plain(name)
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def wrapped(name: object, length: int = 32) -> str:
    """A name in lines of at most half the length."""
    return textwrap.fill(shortened(name, length), math.ceil(length / 2))


@functools.cache
def _fonts() -> list[str]:
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in FALLBACK_FONTS if name in installed)]


def _matplotlib():
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError('Figures need matplotlib: pip install "hf_hierrobust[plots]".') from error
    return matplotlib
