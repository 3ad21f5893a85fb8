"""What the loss of each method connects, in the vocabulary of `flow`."""

import numpy as np
from flow import INPUT, OUTPUT, Flow, save

RIGHT = 64.5  # column of what stands beside the outputs
X = r"\hat{x}"
CE = rf"$\mathrm{{CE}}(z({X}),\,y)$"


def two_rows(name: str, below, moved: str, kept: str, term: str, attack: str) -> None:
    """The trained tower's answer to attacked images, pulled to what a frozen tower says of something else."""
    flow = Flow(26)
    attacked = flow.image(22, attacked=True)
    image = flow.output(22, moved)
    flow.row(attacked, flow.tower(22, "image tower", "trained", "f"), image)
    flow.attack(attacked, attack)
    fixed = flow.output(8.5, kept)
    flow.row(*below(flow, 8.5), fixed)
    flow.pull(image, fixed, term)
    save(flow.figure, name)


def prompts(flow, y):
    return flow.box(INPUT, y, "“a photo of a kit fox”\nand $K - 1$ others", width=17)


def tecoa() -> None:
    def text(flow, y):
        return prompts(flow, y), flow.tower(y, "text tower", "frozen", "g")

    score = rf"$z({X}) = s\,\bar{{f}}({X})\,T^\top$"
    two_rows("tecoa", text, rf"$\bar{{f}}({X})$", "row $y$ of $T$", f"{CE}\n{score}", CE)


def controls() -> None:
    """`plain`: a fixed random classifier in place of the prompts."""
    flow = Flow(38)
    attacked = flow.image(34, attacked=True)
    image = flow.output(34, rf"$\bar{{f}}({X})$")
    flow.row(attacked, flow.tower(34, "image tower", "trained", "f"), image)
    flow.attack(attacked, "the same CE")
    weights = flow.output(20.5, "row $y$ of $W$")
    flow.row(flow.box(29.5, 20.5, "random rows $W$\nfrozen", "frozen"), weights)
    flow.pull(image, weights, rf"$\mathrm{{CE}}(s\,\bar{{f}}({X})\,W^\top,\,y)$")
    flow.row(
        prompts(flow, 8.5), flow.tower(8.5, "text tower", "frozen", "g"), flow.output(8.5, "row $y$ of $T$")
    )
    flow.note(OUTPUT + 7, 8.5, "in no term: images and\nprompts drift apart")
    save(flow.figure, "controls")


def fare() -> None:
    def original(flow, y):
        return flow.image(y), flow.tower(y, "original tower", "frozen", "f^0")

    two_rows(
        "fare", original, f"$f({X})$", "$f^0(x)$", rf"$\Vert f({X}) - f^0(x) \Vert_2^2$", "the same distance"
    )


def anchored(name, outputs, partner, main, terms, attack, beside="") -> None:
    """The trained model on attacked images between the original one and its own clean answers."""
    flow = Flow(37)
    attacked, clean = flow.image(25, attacked=True), flow.image(8.5)
    original, middle, own = (flow.output(y, text) for y, text in zip((33, 20.75, 8.5), outputs))
    flow.row(attacked, flow.tower(33, "original tower", "frozen", "f^0"), original)
    flow.row(attacked, flow.tower(20.75, "image tower", "trained", "f"), middle)
    flow.row(clean, flow.tower(8.5, "image tower", "trained", "f"), own)
    flow.attack(attacked, attack)
    flow.pull(middle, flow.box(RIGHT, 20.75, partner, width=12), "", dx=0)
    flow.note(RIGHT, 25, main, ha="center", size=10)
    flow.pull(original, middle, terms[0])
    flow.pull(middle, own, terms[1])
    flow.note(RIGHT - 7, 33, beside, size=8.5)
    save(flow.figure, name)


def pmg_aft() -> None:
    terms = r"$\alpha\,\mathrm{KL}(P_0\,\Vert\,P_a)$", r"$\beta\,\mathrm{KL}(P_c\,\Vert\,P_a)$"
    beside = "each $P$ is a softmax\nover the $K$ prompts\nin $T$ (frozen)"
    anchored("pmg_aft", ("$P_0$", "$P_a$", "$P_c$"), "class $y$", CE, terms, CE, beside)


def advflyp() -> None:
    logit, feature = r"\lambda_{\mathrm{logit}}\,\mathrm{KL}", r"\lambda_{\mathrm{feature}}"
    terms = (
        rf"${feature}\,\Vert\bar{{f}}({X})-\bar{{f}}^{{\,0}}({X})\Vert_2$"
        + "\n"
        + rf"$+\,{logit}(P_a\,\Vert\,P_0)$",
        rf"${feature}\,\Vert\bar{{f}}({X})-\bar{{f}}(x)\Vert_2$" + "\n" + rf"$+\,{logit}(P_a\,\Vert\,P_c)$",
    )
    outputs = rf"$\bar{{f}}^{{\,0}}({X}),\ P_0$", rf"$\bar{{f}}({X}),\ P_a$", r"$\bar{f}(x),\ P_c$"
    beside = "each $P$ is a softmax\nover the captions of\nthe batch (frozen $g$)"
    pairs = r"$L_{\mathrm{pairs}}$"
    anchored("advflyp", outputs, "its caption\n" + r"$\bar{g}(t)$", pairs, terms, pairs, beside)


def bump(x: float, y: float, width: float) -> np.ndarray:
    """A 7 by 7 map, one value a patch, min-max to [0, 1] and upsampled as the loss does it."""
    grid = np.arange(7)
    cosines = np.exp(-((grid[None] - x) ** 2 + (grid[:, None] - y) ** 2) / (2 * width**2))
    return (cosines - cosines.min()) / np.ptp(cosines)


def tga_zsr() -> None:
    flow = Flow(42)
    rows = 37, 23.25, 9.5
    attacked, clean = flow.image(rows[0], attacked=True), flow.image((rows[1] + rows[2]) / 2)
    flow.attack(attacked, f"{CE} alone")
    towers = [
        flow.tower(rows[0], "image tower", "trained", "f"),
        flow.tower(rows[1], "original tower", "frozen", "f^0"),
        flow.tower(rows[2], "image tower", "trained", "f"),
    ]
    values = bump(4.6, 1.2, 2.0), bump(2.6, 3.2, 1.4), bump(2.9, 3.0, 1.5)
    names = f"$A({X})$", "$A_0(x)$", "$A(x)$"
    maps = [flow.map(OUTPUT, y, *shown) for y, shown in zip(rows, zip(values, names))]
    for start, tower, end in zip((attacked, clean, clean), towers, maps):
        flow.row(start, tower, end)
    flow.pull(maps[0], maps[1], rf"$\alpha\,\Vert A({X}) - A_0(x) \Vert_2$")
    flow.pull(maps[1], maps[2], r"$\beta\,\Vert A(x) - A_0(x) \Vert_2$")
    flow.note(58, rows[0], f"and {CE},\nas in TeCoA")
    flow.note(58, rows[1], "maps of the patches\ntowards $T_y$ (frozen);\nschematic", size=8.5)
    save(flow.figure, "tga_zsr")


def pair(flow, above, below, y, term, gap=12.0) -> tuple:
    """An attacked side above, a clean one below, each through a trained tower, and their pull."""
    ends = []
    for (start, tower, symbol, text), height in ((above, y), (below, y - gap)):
        ends.append(flow.output(height, text))
        flow.row(start(height), flow.tower(height, tower, "trained", symbol), ends[-1])
    flow.pull(*ends, term)
    return ends


def multimodal(flow, top, weights, gap=12.0) -> tuple:
    """MMCoA's two halves, the first ``top`` units high."""

    def attacked_image(y):
        box = flow.image(y, attacked=True)
        flow.attack(box, weights["attack"])
        return box

    def attacked_caption(y):
        box = flow.box(INPUT, y, "attacked caption\n" + r"$\hat{t}$, one word changed", "attacked", width=17)
        flow.attack(box, r"how far $\bar{g}(\hat{t})$ moves")
        return box

    def caption(y):
        return flow.box(INPUT, y, "caption\n$t$")

    image, text = ("image tower", "f"), ("text tower", "g")
    first = pair(
        flow, (attacked_image, *image, f"$f({X})$"), (caption, *text, "$g(t)$"), top, weights["image"], gap
    )
    pair(
        flow,
        (attacked_caption, *text, r"$g(\hat{t})$"),
        (flow.image, *image, "$f(x)$"),
        top - 2 * gap + 1,
        weights["text"],
        gap,
    )
    return first


def mmcoa() -> None:
    flow = Flow(48)
    ways = "CE of $Z$, by\nrows and columns"
    weights = {"attack": CE, "image": rf"$\lambda_I$: {ways}", "text": rf"$\lambda_T$: {ways}"}
    multimodal(flow, 44, weights)
    for y in (38, 15):
        flow.matrix(66.5, y + 0.5)
    flow.note(66.5, 32.6, "$Z$: the pairs\nof a batch", ha="center", size=8.5)
    save(flow.figure, "mmcoa")


def hier_mmcoa() -> None:
    flow = Flow(58)
    both = r"$w_{\mathrm{pairs}}\,L_{\mathrm{MMCoA}}$"
    weights = {"attack": "$J$, of tree and pairs", "image": both, "text": both}
    image, _ = multimodal(flow, 43, weights, gap=11.6)
    nodes = flow.box(INPUT, 54, "prompts of the tree:\nkit fox, canine, mammal", width=18)
    texts = flow.output(54, "nodes of every\nlevel $V_l$", width=12)
    flow.row(nodes, flow.tower(54, "text tower", "trained", "g"), texts)
    flow.pull(texts, image, r"$w_{\mathrm{tree}}\,L_{\mathrm{tree}}$, at all levels")
    flow.note(55, 43, rf"one ${X}$ for both losses", size=8.5)
    save(flow.figure, "hier_mmcoa")


FLOWS = (tecoa, fare, pmg_aft, advflyp, tga_zsr, controls, mmcoa, hier_mmcoa)
