"""The Poincaré ball figure: true radii, geodesic edges, labels that fit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from figure_checks import check_png, setting_of, texts_of

pytest.importorskip("matplotlib", reason="figures need the extra 'plots'")

from matplotlib.colors import to_hex
from matplotlib.text import Text

from hf_hierrobust.naming import level_name
from hf_hierrobust.reports import plot_ball
from hf_hierrobust.reports.figure_io import COLORS


def ball_inputs(dim=16):
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(9, dim, generator=generator) + 2, dim=1)
    levels = [0] * 6 + [1] * 2 + [2]
    norms = torch.tensor([0.6] * 6 + [0.4] * 2 + [0.2])[:, None]
    edges = [(leaf, 6 + leaf // 3) for leaf in range(6)] + [(6, 8), (7, 8)]
    return directions * norms, levels, [f"node {i}" for i in range(9)], edges


def radii_of(collection) -> np.ndarray:
    return np.linalg.norm(collection.get_offsets(), axis=1)


@pytest.mark.parametrize("curvature", [0.5, 1.0, 4.0])
def test_ball_keeps_true_radii_in_both_panels(curvature):
    nodes, levels, names, edges = ball_inputs()
    images = 1.7 * nodes[:6]
    disk, radii = plot_ball(nodes, levels, names, edges=edges, image_tangent=images, curvature=curvature).axes
    true = {
        level_name(level): math.tanh(math.sqrt(curvature) * norm)
        for level, norm in ((0, 0.6), (1, 0.4), (2, 0.2))
    } | {"images": math.tanh(math.sqrt(curvature) * 1.02)}
    drawn = {collection.get_label(): radii_of(collection) for collection in disk.collections}
    assert {name: len(values) for name, values in drawn.items()} == {
        "images": 6,
        "leaf": 6,
        "superclass": 2,
        "superclass 2": 1,
    }
    for name, values in drawn.items():
        assert np.allclose(values, true[name], atol=1e-6), name
    for collection, name in zip(radii.collections, ("superclass 2", "superclass", "leaf", "images")):
        assert np.allclose(collection.get_offsets()[:, 1], true[name], atol=1e-6)
    assert f"{true['leaf']:.3f}" in texts_of(radii)


def test_ball_colours_levels_and_labels_nodes(tmp_path):
    nodes, levels, names, edges = ball_inputs()
    path = tmp_path / "ball.png"
    figure = plot_ball(nodes, levels, names, edges=edges, image_tangent=nodes, image_node=range(9), path=path)
    disk = figure.axes[0]
    colors = {c.get_label(): to_hex(c.get_facecolor()[0], keep_alpha=False) for c in disk.collections}
    assert (colors["leaf"], colors["superclass"]) == (COLORS[0].lower(), COLORS[1].lower())
    assert "node 8" in texts_of(disk)
    assert len([line for line in disk.lines if line.get_gid() == "edge"]) == len(edges)
    assert len(disk.lines) == len(edges) + 9  # and one per image to its own node
    check_png(path)


def test_ball_labels_never_cover_one_another():
    generator = torch.Generator().manual_seed(0)
    nodes = 0.3 + 0.02 * torch.randn(60, 8, generator=generator)
    figure = plot_ball(nodes, [0] * 60, [f"crowded {i}" for i in range(60)])
    labels = [text for text in figure.axes[0].texts if text.get_text().startswith("crowded")]
    boxes = [Text.get_window_extent(label) for label in labels]  # without the leader lines
    assert 1 <= len(labels) < 60
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_ball_edges_are_geodesics():
    # A geodesic of the disk lies on a circle orthogonal to the boundary; through the centre it is straight.
    tangent = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    figure = plot_ball(tangent, [0, 1, 0], list("abc"), edges=[(0, 1), (0, 2)])
    bent, straight = (line for line in figure.axes[0].lines if line.get_gid() == "edge")
    assert np.allclose(straight.get_ydata(), 0, atol=1e-12)
    x, y = bent.get_data()
    radius = math.tanh(1.0)
    assert (x[0], y[0], x[-1], y[-1]) == pytest.approx((radius, 0, 0, radius), abs=1e-12)
    centre = (1 + radius**2) / (2 * radius)  # same for both coordinates by symmetry
    squared = (x - centre) ** 2 + (y - centre) ** 2
    assert np.allclose(squared, 2 * centre**2 - 1)


def test_ball_in_two_dimensions_is_exact():
    tangent = torch.tensor([[0.3, 0.4], [-0.6, 0.0], [0.0, -0.1]])
    disk = plot_ball(tangent, [0, 0, 1], list("abc")).axes[0]
    leaves = next(c for c in disk.collections if c.get_label() == "leaf").get_offsets()
    expected = np.array([[0.6, 0.8], [-1.0, 0.0]]) * np.tanh([[0.5], [0.6]])
    assert np.allclose(leaves, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"curvature": 0.0}, "curvature=0.0"),
        ({"node_level": [0, 1]}, "node_level 2"),
        ({"edges": [(0, 9)]}, "edges has indices outside 0..8"),
        ({"image_tangent": torch.ones(2, 3)}, "D=3"),
        ({"image_tangent": torch.full((2, 16), float("nan"))}, "image_tangent must be finite"),
        ({"image_node": [0]}, "image_node has 1 entries for 0"),
    ],
)
def test_ball_refuses(changes, message):
    nodes, levels, names, edges = ball_inputs()
    arguments = {"node_tangent": nodes, "node_level": levels, "node_names": names, "edges": edges} | changes
    with pytest.raises(ValueError, match=message):
        plot_ball(**arguments)


def test_kind33_the_ball_names_its_projection_and_counts_the_edges_in_order():
    nodes, levels, names, edges = ball_inputs()
    figure = plot_ball(nodes, levels, names, edges=[*edges, (8, 0)], setting="someone/model; tree t")
    said = setting_of(figure)
    assert "someone/model; tree t" in said and "first two principal components" in said
    assert "edges in order (parent nearer to the centre): 8 of 9" in said
    plane = plot_ball(nodes[:, :2], levels, names, edges=edges)
    assert "two dimensions, shown as they are" in setting_of(plane)


def test_the_ball_states_medians_by_level_and_where_images_lie():
    """A node without a child of its own repeats one of the level below and is none of the level's."""
    nodes, levels, names, edges = ball_inputs()
    padding = torch.nn.functional.normalize(nodes[:3], dim=1) * 0.9
    nodes, levels, names = torch.cat([nodes, padding]), [*levels, 1, 1, 1], [*names, "p", "q", "r"]
    images = nodes[:6] * torch.tensor([1.5, 1.5, 1.5, 1.5, 0.5, 1.25])[:, None]
    inputs = {"edges": edges, "image_tangent": images, "image_node": range(6), "curvature": 4.0}
    said = setting_of(plot_ball(nodes, levels, names, **inputs))
    assert "median norm √r‖v‖: leaf 1.200, superclass 0.800, superclass 2 0.400" in said
    assert "images in the median 0.600 beyond their own text, 83 % not nearer than it" in said
    nearer = setting_of(plot_ball(nodes, levels, names, **inputs | {"image_tangent": 0.5 * nodes[:6]}))
    assert "images in the median 0.600 nearer the centre than their own text, 0 % not nearer" in nearer
