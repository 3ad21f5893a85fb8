"""The figures of the concept pages, from their formulas: ``python docs/figures/draw.py``."""

from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("svg")
matplotlib.rcParams |= {"svg.hashsalt": "hf_hierrobust", "svg.fonttype": "path", "font.size": 9}
from matplotlib import pyplot as plt  # noqa: E402

HERE = Path(__file__).parent
COLORS = ["#3b6fb6", "#d98324", "#4c9a5f"]
TREE = {
    "mammal": {"canine": ["kit fox", "wolf"], "feline": ["tabby", "lynx"]},
    "plant": {"tree": ["oak", "elm"]},
}


def save(figure, name: str) -> None:
    figure.tight_layout()
    figure.savefig(HERE / f"{name}.svg", metadata={"Date": None}, facecolor="white")
    plt.close(figure)


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def hier_robust() -> None:
    """A tree with its levels at tangent norms 1.2, 0.7, 0.3 (r = 1), and Theorem 1's margins."""
    figure, (ball, margin) = plt.subplots(1, 2, figsize=(8.2, 3.9))
    ball.add_patch(plt.Circle((0, 0), 1, fill=False, color="#888888"))
    radii = np.tanh([1.2, 0.7, 0.3])
    leaves = [leaf for tops in TREE.values() for kids in tops.values() for leaf in kids]
    angle = {leaf: 2 * np.pi * i / len(leaves) + 0.3 for i, leaf in enumerate(leaves)}

    def draw(name, below, level):
        angles = [draw(child, kids, level - 1) for child, kids in below]
        mean = np.mean(angles) if angles else angle[name]
        point = radii[level] * np.array([np.cos(mean), np.sin(mean)])
        for a in angles:
            end = radii[level - 1] * np.array([np.cos(a), np.sin(a)])
            ball.plot(*zip(point, end), color="#bbbbbb", lw=1, zorder=1)
        ball.plot(*point, "o", color=COLORS[level], ms=6)
        away = (radii[level] + (0.12 if level == 0 else -0.0)) * np.array([np.cos(mean), np.sin(mean)])
        side = {"ha": "left" if away[0] > 0 else "right", "va": "center"} if level == 0 else {"va": "bottom"}
        ball.annotate(name, away, xytext=(0, 0 if level == 0 else 5), textcoords="offset points", **side)
        return mean

    for top, middle in TREE.items():
        draw(top, [(m, [(leaf, []) for leaf in kids]) for m, kids in middle.items()], 2)
    ball.plot(0, 0, "+", color="#888888")
    ball.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect="equal", title="superclasses nearer the centre")
    ball.axis("off")
    eta = np.linspace(0, 0.9999, 600)
    margin.plot(eta, 4 * np.arctanh(eta), color=COLORS[0], label="distance: 4κ artanh(η)")
    margin.plot(eta, 2 * eta**2, color=COLORS[1], label="inner product: 2κη²")
    margin.set(
        xlabel="radius η (r = 1)", ylabel="largest log-margin / κ", ylim=(0, 14), title="what a depth allows"
    )
    margin.legend(frameon=False)
    margin.spines[["top", "right"]].set_visible(False)
    save(figure, "hier_robust")


def agft() -> None:
    cosines, names = np.array([0.30, 0.285, 0.275, 0.25, 0.22]), ["kit fox", "red fox", "wolf", "cat", "oak"]
    figure, axes = plt.subplots(figsize=(6, 2.8))
    for i, (scale, label) in enumerate([(180, "γ = 1: multiplier 180"), (72, "γ = 0.4: multiplier 72")]):
        axes.bar(np.arange(5) + 0.4 * i - 0.2, softmax(scale * cosines), 0.38, color=COLORS[i], label=label)
    axes.set_xticks(range(5), [f"{n}\ncos {c:.3f}" for n, c in zip(names, cosines)])
    axes.set_ylabel("target p")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, "agft")


def hier_agft() -> None:
    levels = [
        ["kit fox", "wolf", "tabby", "lynx", "oak", "elm"],
        ["canine", "feline", "tree"],
        ["mammal", "plant"],
    ]
    sums = [np.eye(6), np.kron(np.eye(3), np.ones(2)), np.array([[1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]])]
    original = softmax(100 * np.array([0.290, 0.285, 0.272, 0.274, 0.25, 0.245]))
    target = 0.5 * original + 0.5 * np.eye(6)[0]
    figure, axes = plt.subplots(1, 3, figsize=(8.2, 2.6), sharey=True, width_ratios=[6, 3, 2])
    for level, (axis, names, rows) in enumerate(zip(axes, levels, sums)):
        axis.bar(names, rows @ target, color=COLORS[level], width=0.7)
        axis.set_title(f"level {level}")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("target p, w = 1/2")
    save(figure, "hier_agft")


if __name__ == "__main__":
    for draw in (hier_robust, agft, hier_agft):
        draw()
