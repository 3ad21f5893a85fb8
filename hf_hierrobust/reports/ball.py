"""The class tree and images in the Poincaré ball: a disk with true radii, and the radii level by level."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..geometry import image_depth
from ..naming import level_name
from .ball_labels import place_labels
from .figure_io import (
    COLORS,
    FAINT,
    INK,
    clean_frame,
    drawn,
    new_figure,
    save_png,
    say_start,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IMAGE_COLOR = "#8A8A8A"


@drawn
def plot_ball(
    node_tangent: Tensor,
    node_level: Sequence[int] | Tensor,
    node_names: Sequence[str],
    *,
    edges: Sequence[tuple[int, int]] = (),
    image_tangent: Tensor | None = None,
    image_node: Sequence[int] | Tensor | None = None,
    curvature: float = 1.0,
    path: str | Path | None = None,
    setting: str = "",
    title: str = "Class tree in the Poincaré ball",
) -> Figure:
    """Left: nodes, edges and images in a disk; right: how far from the centre each level lies.

    A point keeps its true radius `tanh(√r‖v‖)`, as a fraction of the ball's radius 1/√r, in both panels. Only
    the angle is a projection: that of the first two principal components of the directions v/‖v‖, images and
    texts each centred on their own mean so that the gap between them does not use up a component. With D = 2
    it is exact. Distances between points of the disk are therefore illustrative; radii are not. An edge is in
    order if its parent lies nearer to the centre than its child.

    The title counts the edges in order and states the median tangent norm of each level and where images lie
    beside their own texts.

    Args:
        node_tangent: tangent vectors at the origin of the text nodes, `(N, D)`, before exp_0.
        node_level: level of each node, `(N,)`; 0 = leaves.
        node_names: N names; those that find room are written, most general levels first.
        edges: (child, parent) node indices, drawn as geodesics.
        image_tangent: tangent vectors of images, `(M, D)`.
        image_node: node of each image's own class, `(M,)`; joins the image to it by a faint line.
        curvature: r > 0; the ball has curvature -r.
        path: where to write a PNG; None draws only.
        setting: the model, and which texts and images were embedded.

    Raises:
        ValueError: shapes or indices do not fit, or `curvature <= 0`.
        ImportError: matplotlib is missing.
    """
    nodes, levels = _matrix("node_tangent", node_tangent), np.asarray(node_level, dtype=int)
    images = None if image_tangent is None else _matrix("image_tangent", image_tangent)
    owners = None if image_node is None else np.asarray(image_node, dtype=int)
    edges = np.asarray(edges, dtype=int).reshape(-1, 2)
    _check(nodes, levels, node_names, edges, images, owners, curvature)

    projection = "two dimensions, shown as they are"
    if nodes.shape[1] > 2:
        projection = "first two principal components of the directions"
    facts = [setting, f"radii are true, angles are a projection: {projection}"]
    facts += _depth_facts(np.sqrt(curvature) * np.linalg.norm(nodes, axis=1), levels, edges)
    if owners is not None:
        beyond = np.sqrt(curvature) * (np.linalg.norm(images, axis=1) - np.linalg.norm(nodes, axis=1)[owners])
        found = image_depth(torch.from_numpy(beyond))
        side = "beyond" if found.median >= 0 else "nearer the centre than"
        facts.append(
            f"images in the median {abs(found.median):.3f} {side} their own text, "
            f"{100 * found.not_nearer:.0f} % not nearer than it"
        )
    figure = new_figure(11.0, 5.3, title, "; ".join(filter(None, facts)))
    disk, radii = figure.subplots(1, 2, width_ratios=(1.1, 1))
    components = _principal_directions(nodes)
    points = _disk_points(nodes, components, curvature)
    image_points = None if images is None else _disk_points(images, components, curvature)
    _draw_disk(disk, points, levels, edges, image_points, owners)
    _draw_radii(radii, points, levels, image_points)
    # Labels are placed by their size in pixels, so the layout must be settled first and stay.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    place_labels(disk, points, levels, node_names)
    return save_png(figure, path)


def _depth_facts(norms: np.ndarray, levels: np.ndarray, edges: np.ndarray) -> list[str]:
    """How many edges are in order, and the median norm of each level, over the nodes that are its own."""
    said = []
    for level in np.unique(levels):
        here = levels == level
        own = here & np.isin(np.arange(len(norms)), edges[:, 1])  # others repeat a node of the level below
        said.append(f"{level_name(level)} {np.median(norms[own if level and own.any() else here]):.3f}")
    found = [f"median norm √r‖v‖: {', '.join(said)}"]
    if len(edges):
        ordered = int((norms[edges[:, 1]] < norms[edges[:, 0]]).sum())
        found.insert(0, f"edges in order (parent nearer to the centre): {ordered} of {len(edges)}")
    return found


def _matrix(name: str, vectors: Tensor) -> np.ndarray:
    values = torch.as_tensor(vectors).detach().cpu().double().numpy()
    if values.ndim != 2 or len(values) == 0 or values.shape[1] < 2 or not np.isfinite(values).all():
        raise ValueError(
            f"{name} must be finite and of shape (N, D) with N >= 1, D >= 2; got {values.shape}."
        )
    return values


def _check(nodes, levels, names, edges, images, owners, curvature) -> None:
    if not curvature > 0:
        raise ValueError(f"curvature={curvature} must be positive; the ball has curvature -r.")
    if not len(nodes) == len(levels) == len(names):
        raise ValueError(
            f"node_tangent has {len(nodes)} rows, node_level {len(levels)} and node_names {len(names)}; "
            "all three describe the same nodes."
        )
    if images is not None and images.shape[1] != nodes.shape[1]:
        raise ValueError(f"image_tangent has D={images.shape[1]} but node_tangent D={nodes.shape[1]}.")
    if owners is not None and (images is None or len(owners) != len(images)):
        count = 0 if images is None else len(images)
        raise ValueError(f"image_node has {len(owners)} entries for {count} rows of image_tangent.")
    for name, indices in (("edges", edges), ("image_node", owners)):
        if indices is not None and indices.size and not 0 <= indices.min() <= indices.max() < len(nodes):
            raise ValueError(f"{name} has indices outside 0..{len(nodes) - 1}, the rows of node_tangent.")


def _directions(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-12)


def _principal_directions(vectors: np.ndarray) -> np.ndarray | None:
    """Two principal components `(D, 2)` of the directions; None where the plane is already given (D = 2)."""
    if vectors.shape[1] == 2:
        return None
    directions = _directions(vectors)
    return np.linalg.svd(directions - directions.mean(axis=0), full_matrices=True)[2][:2].T


def _disk_points(vectors: np.ndarray, components: np.ndarray | None, curvature: float) -> np.ndarray:
    """Points of the unit disk as complex numbers `(N,)`: true relative radius, projected angle."""
    radius = np.tanh(np.sqrt(curvature) * np.linalg.norm(vectors, axis=1))
    plane = _directions(vectors)
    if components is not None:
        plane = (plane - plane.mean(axis=0)) @ components
    return radius * np.exp(1j * np.arctan2(plane[:, 1], plane[:, 0]))


def _geodesic(start: complex, end: complex, num_points: int = 24) -> np.ndarray:
    """Points of the hyperbolic segment from start to end: move start to 0, walk straight, move back."""
    target = (end - start) / (1 - np.conj(start) * end)
    distance = min(abs(target), 1 - 1e-12)
    if distance == 0:
        return np.array([start, end])
    walked = np.tanh(np.linspace(0, 1, num_points) * np.arctanh(distance)) * target / abs(target)
    return (start + walked) / (1 + np.conj(start) * walked)


def _draw_disk(axes: Axes, points, levels, edges, image_points, owners) -> None:
    from matplotlib.patches import Circle

    everything = points if image_points is None else np.concatenate([points, image_points])
    limit = min(1.04, 1.3 * float(np.abs(everything).max()) + 0.02)
    step = 0.25 if limit > 0.6 else 0.1 if limit > 0.25 else 0.02
    angles = np.sort(np.angle(everything))
    gaps = np.diff(angles, append=angles[0] + 2 * np.pi)
    free = angles[gaps.argmax()] + gaps.max() / 2
    for radius in np.arange(step, min(limit, 1.0), step):
        axes.add_patch(Circle((0, 0), radius, fill=False, edgecolor=FAINT, linewidth=0.8, zorder=0))
        axes.text(
            radius * np.cos(free),
            radius * np.sin(free),
            f"{radius:.2g}",
            fontsize=8,
            color="#777777",
            ha="center",
            va="center",
            zorder=0.5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
        )
    axes.add_patch(Circle((0, 0), 1.0, fill=False, edgecolor=INK, linewidth=1.4, gid="boundary"))
    if image_points is not None:
        for point, owner in zip(image_points, [] if owners is None else owners):
            line = np.array([point, points[owner]])
            axes.plot(line.real, line.imag, color=IMAGE_COLOR, linewidth=0.5, alpha=0.25, zorder=1)
        axes.scatter(
            image_points.real,
            image_points.imag,
            s=9,
            color=IMAGE_COLOR,
            alpha=0.6,
            zorder=2,
            linewidths=0,
            label="images",
        )
    for child, parent in edges:
        line = _geodesic(points[child], points[parent])
        axes.plot(line.real, line.imag, color="#555555", linewidth=0.8, alpha=0.7, zorder=3, gid="edge")
    for level in np.unique(levels):
        chosen = points[levels == level]
        axes.scatter(
            chosen.real,
            chosen.imag,
            s=28 + 26 * level,
            color=_level_color(level),
            zorder=4 + level,
            edgecolors="white",
            linewidths=0.7,
            label=level_name(level),
        )
    zoom = "" if limit > 1 else f", zoomed to radius {limit:.2g} of 1"
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xticks=[], yticks=[])
    axes.set_title(f"true radius, projected angle{zoom}", fontsize=11, loc="left")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=4, fontsize=10, frameon=False)
    axes.spines[:].set_visible(False)


def _draw_radii(axes: Axes, points, levels, image_points) -> None:
    present = np.unique(levels)[::-1]
    groups = [(level_name(level), np.abs(points[levels == level]), _level_color(level)) for level in present]
    if image_points is not None:
        groups.append(("images", np.abs(image_points), IMAGE_COLOR))
    generator = np.random.default_rng(0)
    for position, (_, radius, color) in enumerate(groups):
        spread = generator.uniform(-0.16, 0.16, len(radius))
        axes.scatter(position + spread, radius, s=12, color=color, alpha=0.55, linewidths=0)
    axes.boxplot(
        [radius for _, radius, _ in groups],
        positions=range(len(groups)),
        widths=0.5,
        whis=(0, 100),
        manage_ticks=False,
        medianprops={"color": INK, "linewidth": 2.0},
    )
    for position, (_, radius, _) in enumerate(groups):
        axes.annotate(
            f"{np.median(radius):.3f}", (position + 0.28, np.median(radius)), fontsize=9, va="center"
        )
    axes.set_xticks(range(len(groups)), [f"{name}\n(n = {len(radius)})" for name, radius, _ in groups])
    axes.set_xlim(-0.6, len(groups) - 0.2)
    axes.set_ylabel("radius √r‖u‖  (0 = centre, 1 = edge of the ball)", fontsize=11)
    axes.set_title("radius by level: median, quartiles, range", fontsize=11, loc="left")
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    clean_frame(axes)
    say_start(axes)


def _level_color(level: int) -> str:
    return COLORS[level % len(COLORS)]
