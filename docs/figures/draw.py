"""The figures of the concept pages, from their formulas: ``python docs/figures/draw.py``."""

import numpy as np
from flow import GREY, plt, save
from flows import FLOWS

from hf_hierrobust.reports.figure_io import COLORS, INK, VERMILLION

TREE = {
    "mammal": {"canine": ["kit fox", "wolf"], "feline": ["tabby", "lynx"]},
    "plant": {"tree": ["oak", "elm"]},
}


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def hier_robust() -> None:
    """A tree with its levels at tangent norms 1.2, 0.7, 0.3 (r = 1), and Theorem 1's margins."""
    figure, (ball, margin) = plt.subplots(1, 2, figsize=(7.2, 3.5))
    ball.add_patch(plt.Circle((0, 0), 1, fill=False, color=GREY))
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
    ball.plot(0, 0, "+", color=GREY)
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
    figure.tight_layout()
    save(figure, "hier_robust")


def agft() -> None:
    cosines, names = np.array([0.30, 0.285, 0.275, 0.25, 0.22]), ["kit fox", "red fox", "wolf", "cat", "oak"]
    figure, axes = plt.subplots(figsize=(7.2, 3))
    for i, (scale, label) in enumerate([(180, "γ = 1: multiplier 180"), (72, "γ = 0.4: multiplier 72")]):
        axes.bar(np.arange(5) + 0.4 * i - 0.2, softmax(scale * cosines), 0.38, color=COLORS[i], label=label)
    axes.set_xticks(range(5), [f"{n}\ncos {c:.3f}" for n, c in zip(names, cosines)])
    axes.set_ylabel("target p")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
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
    figure, axes = plt.subplots(1, 3, figsize=(7.2, 2.5), sharey=True, width_ratios=[6, 3, 2])
    for level, (axis, names, rows) in enumerate(zip(axes, levels, sums)):
        axis.bar(names, rows @ target, color=COLORS[level], width=0.7)
        axis.set_title(f"level {level}")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("target p, w = 1/2")
    figure.tight_layout()
    save(figure, "hier_agft")


def toy_margin(images):
    """Score of the one class above that of the other, for images of two pixels, (..., 2) -> (...)."""
    u, v = images[..., 0], images[..., 1]
    return np.sin(7 * u) + np.sin(9 * v) + 0.8 * np.sin(14 * u * v + 1)


def toy_pgd(images, eps, steps, start):
    """Projected gradient ascent (alpha = eps / 4) on the margin lost: all iterates, (steps + 1, ..., 2)."""
    side = np.sign(toy_margin(images))[..., None]
    low, high = np.maximum(images - eps, 0), np.minimum(images + eps, 1)
    path, h = [np.clip(start, low, high)], 1e-5
    for _ in range(steps):
        slopes = [toy_margin(path[-1] + h * axis) - toy_margin(path[-1] - h * axis) for axis in np.eye(2)]
        path.append(np.clip(path[-1] - eps / 4 * np.sign(side * np.stack(slopes, -1)), low, high))
    return np.array(path)


def toy_accuracies(eps, random):
    """Attack -> share of 500 images that it leaves right, and the share that nothing on a grid breaks."""
    images = random.uniform(0, 1, (500, 2))
    side = np.sign(toy_margin(images))

    def right(steps, restarts=1):
        starts = images + random.uniform(-eps, eps, (restarts, *images.shape))
        ends = np.array([toy_pgd(images, eps, steps, start)[-1] for start in starts])
        return np.mean((side * toy_margin(ends) > 0).all(0))

    moves = np.stack(np.meshgrid(*[np.linspace(-eps, eps, 81)] * 2), -1).reshape(-1, 2)
    worst = (side[:, None] * toy_margin(np.clip(images[:, None] + moves, 0, 1)) > 0).all(1)
    attacks = {"clean": 1.0} | {f"PGD-{n}": right(n) for n in (1, 2, 5, 20)}
    return attacks | {f"PGD-20\n{n} starts": right(20, n) for n in (3, 10)}, worst.mean()


def threat_model() -> None:
    """A budget in a space of two pixels, and attacked accuracies above the true worst case, all computed."""
    random, eps = np.random.default_rng(0), 0.15
    figure, (space, bars) = plt.subplots(1, 2, figsize=(7.2, 3.4), width_ratios=[1, 1.6])
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 301)] * 2), -1)
    space.contourf(*np.moveaxis(grid, -1, 0), toy_margin(grid) > 0, levels=1, colors=["#FBE9DF", "#D9EAF5"])
    image = np.array([0.88, 0.58])
    low, high = np.maximum(image - eps, 0), np.minimum(image + eps, 1)
    space.add_patch(plt.Rectangle(low, *(high - low), fill=False, color=INK, lw=1.5))
    space.add_patch(plt.Circle(image, eps, fill=False, color=GREY, ls="--"))
    space.plot(*toy_pgd(image, eps, 8, image).T, "o-", color=VERMILLION, ms=3.5, lw=1)
    space.plot(*image, "o", color=INK, ms=6)
    space.annotate("$x$", image, xytext=(-7, -4), textcoords="offset points", ha="right", fontsize=12)
    space.set(
        xlim=(0.5, 1.04),
        ylim=(0.3, 0.84),
        aspect="equal",
        xticks=[0.5, 0.75, 1],
        yticks=[0.5, 0.75],
        xlabel="first pixel",
        ylabel="second pixel",
    )
    space.set_title("a budget, and one attack in it")
    shares, worst = toy_accuracies(0.12, random)
    bars.bar(list(shares), [100 * share for share in shares.values()], color=COLORS[0], width=0.6)
    bars.axhline(100 * worst, color=INK, lw=1.5)
    bars.annotate(
        "true worst case", (6.4, 100 * worst), xytext=(0, 9), textcoords="offset points", ha="right"
    )
    bars.set(ylabel="accuracy, %", ylim=(0, 105), title="every attack gives an upper bound")
    bars.tick_params(axis="x", labelsize=7.5)
    bars.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    save(figure, "threat_model")


if __name__ == "__main__":
    for draw in (threat_model, hier_robust, agft, hier_agft, *FLOWS):
        draw()
