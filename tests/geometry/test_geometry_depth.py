"""Order of norms along edges, medians by level and the depth of images, counted by hand."""

from __future__ import annotations

import pytest
import torch

from hf_hierrobust.geometry import edge_order, image_depth, level_medians, smallest_step
from hf_hierrobust.hierarchy import LabelTree

# Four leaves, two superclasses, one top: a and b below x, c and d below y.
EDGES = [
    (torch.tensor([0, 1, 2, 3]), torch.tensor([0, 0, 1, 1])),
    (torch.tensor([0, 1]), torch.tensor([0, 0])),
]


def levels(*values: list[float]) -> list[torch.Tensor]:
    return [torch.tensor(level, dtype=torch.float64) for level in values]


NORMS = levels([1.0, 0.5, 0.9, 0.75], [0.5, 0.875], [0.625])


def test_an_edge_counts_only_if_its_parent_is_strictly_nearer():
    # a over x: 0.5; b level with x: no; c over y: 0.025; d below y: no. x below the top: no; y over it: 0.25.
    assert edge_order(NORMS, EDGES) == [(4, 2, 2), (2, 1, 1)]
    assert edge_order(NORMS, EDGES, margin=0.025) == [(4, 2, 2), (2, 1, 1)]
    assert edge_order(NORMS, EDGES, margin=0.03) == [(4, 2, 1), (2, 1, 1)]
    assert edge_order(NORMS, EDGES, margin=0.25) == [(4, 2, 1), (2, 1, 1)], "reached exactly"
    assert edge_order(NORMS, EDGES, margin=0.51) == [(4, 2, 0), (2, 1, 0)]


def test_medians_by_level_and_the_smallest_step_between_neighbours():
    medians = level_medians(NORMS, EDGES)
    assert medians == [0.825, 0.6875, 0.625]
    assert smallest_step(medians) == pytest.approx(0.0625)
    assert smallest_step([0.5, 0.25, 0.75]) == -0.5, "a level farther out than the one below"
    assert smallest_step([0.5]) is None


def test_padding_is_no_edge_and_does_not_shift_the_level_above():
    tree = LabelTree.from_paths({"a": ["x", "t"], "b": ["x", "t"], "lone": ["lone", "t"]}, name="t")
    assert tree.levels[1] == ("lone", "x")
    edges = [tree.edges(level) for level in range(tree.depth)]
    norms = levels([0.75, 0.75, 0.9], [0.9, 0.5], [0.25])
    assert edge_order(norms, edges) == [(2, 2, 2), (2, 2, 2)]
    assert level_medians(norms, edges) == [0.75, 0.5, 0.25], "lone is a leaf, wherever it is repeated"


def test_an_image_level_with_its_leaf_is_not_nearer():
    found = image_depth(torch.tensor([0.0, 0.25, -0.25, 0.5, 1.0]))
    assert found.median == 0.25 and found.not_nearer == pytest.approx(4 / 5)
    assert image_depth(torch.tensor([-0.5, 0.25])).median == -0.125, "between the two in the middle"


def test_a_tree_of_one_level_has_no_edges():
    assert edge_order(NORMS[:1], []) == [] and level_medians(NORMS[:1], []) == [0.825]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: edge_order(NORMS[:2], EDGES), "2 levels of norms need edges of 1, got 2"),
        (lambda: level_medians(NORMS, EDGES[:1]), "3 levels of norms need edges of 2, got 1"),
        (
            lambda: edge_order([NORMS[0][:3], *NORMS[1:]], EDGES),
            "edges of level 0 have child indices 0 to 3, but there are 3",
        ),
        (lambda: edge_order(NORMS, EDGES, margin=-0.1), "margin=-0.1"),
        (lambda: edge_order(NORMS, EDGES, margin=float("nan")), "margin=nan"),
        (lambda: image_depth(torch.ones(0)), r"shape \(0,\)"),
        (lambda: image_depth(torch.ones(3, 2)), r"shape \(3, 2\)"),
    ],
)
def test_what_is_of_no_tree_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
