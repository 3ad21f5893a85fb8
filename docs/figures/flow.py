"""The common vocabulary of the figures that show what a loss connects: boxes, arrows, and one legend.

A drawing is 7.2 inches wide, 72 units, so that its text is as large as the page's. Trained parts are blue,
frozen ones grey and hatched, attacked inputs carry a delta, and a thick green arrow joins the two things that
the loss pulls together.
"""

from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams |= {
    "svg.hashsalt": "hf_hierrobust",
    "svg.fonttype": "path",
    "font.size": 9,
    "mathtext.fontset": "cm",
    "hatch.linewidth": 0.6,
}
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch  # noqa: E402

from hf_hierrobust.reports.figure_io import BLUE, FAINT, GREEN, INK, VERMILLION  # noqa: E402

HERE = Path(__file__).parent
GREY = "#888888"
STYLES = {
    "plain": {"facecolor": "white", "edgecolor": GREY},
    "trained": {"facecolor": "#D9EAF5", "edgecolor": BLUE, "linewidth": 1.6},
    "frozen": {"facecolor": "#F2F2F2", "edgecolor": "#AAAAAA", "hatch": "////"},
    "attacked": {"facecolor": "#FBE9DF", "edgecolor": VERMILLION, "linewidth": 1.6},
}
INPUT, TOWER, OUTPUT = 10, 29.5, 47.5  # centres of the columns


def save(figure, name: str) -> None:
    figure.savefig(HERE / f"{name}.svg", metadata={"Date": None}, facecolor="white")
    plt.close(figure)


class Box(NamedTuple):
    x: float
    y: float
    width: float
    height: float

    def side(self, towards: "Box") -> tuple[float, float]:
        """Middle of the side that faces another box: left or right before top or bottom."""
        across = abs(towards.x - self.x) > (self.width + towards.width) / 2
        if across:
            return self.x + self.width / 2 * (1 if towards.x > self.x else -1), self.y
        return self.x, self.y + self.height / 2 * (1 if towards.y > self.y else -1)


class Flow:
    """A drawing of ``height`` units, 10 to an inch; the legend takes the lowest 4."""

    def __init__(self, height: float):
        self.figure = plt.figure(figsize=(7.2, height / 10))
        self.axes = self.figure.add_axes([0, 0, 1, 1])
        self.axes.set(xlim=(0, 72), ylim=(0, height), aspect="equal")
        self.axes.axis("off")
        self._legend()

    def box(self, x, y, text, kind="plain", width=15.0, height=5.4) -> Box:
        corner = (x - width / 2, y - height / 2)
        shape = "round,pad=0,rounding_size=0.8"
        self.axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle=shape, **STYLES[kind]))
        behind = {"facecolor": "#F2F2F2", "edgecolor": "none", "pad": 1.5} if kind == "frozen" else None
        size = 11 if text.startswith("$") else 9
        at = {"ha": "center", "va": "center", "linespacing": 1.25, "fontsize": size}
        self.axes.text(x, y, text, color=INK, bbox=behind, **at)
        if kind == "attacked":
            self._delta(corner[0] + 0.3, corner[1] + height - 0.3)
        return Box(x, y, width, height)

    def image(self, y, attacked=False, x=INPUT) -> Box:
        if attacked:
            return self.box(x, y, r"attacked image" + "\n" + r"$\hat{x} = x + \delta$", "attacked")
        return self.box(x, y, "clean image\n$x$")

    def tower(self, y, name, kind, symbol) -> Box:
        return self.box(TOWER, y, f"{name} ${symbol}$\n{kind}", kind)

    def output(self, y, text, **size) -> Box:
        return self.box(OUTPUT, y, text, **({"width": 11} | size))

    def row(self, start: Box, *then: Box) -> None:
        """Thin arrows from box to box."""
        for a, b in zip((start, *then), then):
            self._arrow(a.side(b), b.side(a), "-|>", color="#555555", linewidth=0.9)

    def pull(self, a: Box, b: Box, term: str, dx=1.4, dy=0.0, ha="left", shift=0.0) -> None:
        """Thick double arrow between two boxes, ``term`` beside its middle; ``shift`` moves it sideways."""
        start, end = ((x + shift, y) for x, y in (a.side(b), b.side(a)))
        self._arrow(start, end, "<|-|>", color=GREEN, linewidth=2.4)
        x, y = (start[0] + end[0]) / 2 + dx, (start[1] + end[1]) / 2 + dy
        self.note(x, y, term, ha=ha, size=10)

    def note(self, x, y, text, ha="left", size=9) -> None:
        self.axes.text(x, y, text, ha=ha, va="center", color=INK, fontsize=size, linespacing=1.35)

    def attack(self, attacked: Box, text: str) -> None:
        """What the attack maximises, below the attacked input."""
        self.note(
            attacked.x, attacked.y - attacked.height / 2 - 2.4, f"the attack maximises\n{text}", "center"
        )

    def map(self, x, y, values, name, size=7.5) -> Box:
        """A map over the image with its name at the left below."""
        extent = (x - size / 2, x + size / 2, y - size / 2, y + size / 2)
        self.axes.imshow(values, extent=extent, cmap="cividis", interpolation="bilinear", aspect="auto")
        self.note(x + size / 2 + 1, y, name, size=11)
        return Box(x, y, size, size)

    def matrix(self, x, y, size=8.0, pairs=5) -> Box:
        """Scores of a batch's pairs, their own in the diagonal."""
        step = size / pairs
        for row in range(pairs):
            for column in range(pairs):
                corner = (x - size / 2 + column * step, y + size / 2 - (row + 1) * step)
                color = GREEN if row == column else "white"
                self.axes.add_patch(
                    plt.Rectangle(corner, step, step, facecolor=color, edgecolor=FAINT, lw=0.8)
                )
        return Box(x, y, size, size)

    def _arrow(self, start, end, style, **look) -> None:
        fixed = {"arrowstyle": style, "mutation_scale": 11, "shrinkA": 1.5, "shrinkB": 1.5}
        self.axes.add_patch(FancyArrowPatch(start, end, **fixed, **look))

    def _delta(self, x, y) -> None:
        self.axes.add_patch(Circle((x, y), 1.15, facecolor=VERMILLION, edgecolor="white", zorder=3))
        self.axes.text(x, y - 0.05, r"$\delta$", ha="center", va="center", color="white", zorder=4)

    def _legend(self) -> None:
        self.axes.plot([1, 71], [3.7, 3.7], color=FAINT, lw=0.8)
        for x, kind, text in ((2, "trained", "trained"), (15, "frozen", "frozen")):
            shape = FancyBboxPatch((x, 1.1), 3, 1.6, boxstyle="round,pad=0,rounding_size=0.3", **STYLES[kind])
            self.axes.add_patch(shape)
            self.note(x + 4, 1.8, text, size=8.5)
        self._delta(29, 1.9)
        self.note(30.8, 1.8, "attacked", size=8.5)
        self._arrow((41, 1.9), (46, 1.9), "<|-|>", color=GREEN, linewidth=2.4)
        self.note(47, 1.8, "pulled together by the loss", size=8.5)
