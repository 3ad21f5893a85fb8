"""Radial placement of the levels of a tree."""

from __future__ import annotations

import pytest
import torch

from hf_hierrobust.geometry import place_levels

LEVELS = torch.tensor([0, 0, 0, 0, 1, 1, 2])
EDGES = [
    (torch.tensor([0, 1, 2, 3]), torch.tensor([4, 4, 5, 5])),
    (torch.tensor([4, 5]), torch.tensor([6, 6])),
]


def in_order(norms, edges, margin=0.0) -> int:
    return sum(int((norms[parent] <= norms[child] - margin + 1e-9).sum()) for child, parent in edges)


def test_equal_norms_are_placed_a_margin_apart():
    scales = place_levels(torch.full((7,), 2.0), LEVELS, EDGES, leaf_norm=0.5, margin=0.1)
    assert torch.allclose(2.0 * scales, torch.tensor([0.5, 0.4, 0.3], dtype=torch.float64))


def test_every_edge_is_in_order_and_the_tightest_by_exactly_the_margin():
    norms = torch.tensor([1.0, 1.1, 0.9, 1.0, 1.2, 0.95, 1.3])
    scales = place_levels(norms, LEVELS, EDGES, leaf_norm=0.5, margin=0.01)
    placed = norms.double() * scales[LEVELS]
    assert float(placed[:4].median()) == pytest.approx(0.5)
    assert in_order(placed, EDGES, 0.01) == 6
    tightest = min(float((placed[child] - placed[parent]).min()) for child, parent in EDGES)
    assert tightest == pytest.approx(0.01)


def test_a_few_odd_prompts_do_not_drag_a_level_inwards():
    leaves, parents = 1000, 100
    norms = torch.ones(leaves + parents)
    norms[:5] = 0.2  # five leaves far nearer the centre than all others
    levels = torch.tensor([0] * leaves + [1] * parents)
    edges = [(torch.arange(leaves), leaves + torch.arange(leaves) % parents)]
    scales = place_levels(norms, levels, edges, leaf_norm=0.5, margin=0.02)
    assert float(scales[1]) == pytest.approx(0.48)


def test_no_level_lies_nearer_the_centre_than_its_equal_share():
    norms = torch.tensor([1.0, 1.0, 1.0, 0.1, 1.0, 1.0, 1.0])  # edge 3 -> 5 cannot be had without ruin
    scales = place_levels(norms, LEVELS, EDGES, leaf_norm=0.6, margin=0.02)
    assert float(scales[1]) == pytest.approx(0.4) and float(scales[2]) == pytest.approx(0.38)


def test_edges_may_skip_levels():
    """A padded leaf's parent may stand several levels above it."""
    levels, norms = torch.tensor([0, 0, 1, 2]), torch.tensor([1.0, 0.7, 1.0, 1.0])
    edges = [(torch.tensor([0, 2, 1]), torch.tensor([2, 3, 3]))]
    scales = place_levels(norms, levels, edges, leaf_norm=0.7, margin=0.05)
    placed = norms.double() * scales[levels]
    assert in_order(placed, edges, 0.05) == 3


def test_given_levels_stay_and_only_the_new_ones_are_placed():
    norms, kept = torch.ones(7), torch.tensor([0.5, 0.3])
    scales = place_levels(norms, LEVELS, EDGES, leaf_norm=0.5, margin=0.02, scales=kept)
    assert torch.allclose(scales, torch.tensor([0.5, 0.3, 0.28], dtype=torch.float64))


def test_levels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"gap_margin=0.2 .*3 levels.*norm 0.5"):
        place_levels(torch.ones(7), LEVELS, EDGES, leaf_norm=0.5, margin=0.2)


def test_a_level_without_a_node_takes_the_scale_below_and_the_next_is_placed_from_there():
    levels = torch.tensor([0, 0, 0, 0, 2, 2])
    edges = [(torch.tensor([0, 1, 2, 3]), torch.tensor([4, 4, 5, 5]))]
    scales = place_levels(torch.full((6,), 2.0), levels, edges, leaf_norm=0.5, margin=0.1)
    assert torch.allclose(2.0 * scales, torch.tensor([0.5, 0.5, 0.4], dtype=torch.float64))
    further = place_levels(torch.ones(6), levels, edges, 0.5, 0.1, scales=torch.tensor([0.5]))
    assert torch.allclose(further, torch.tensor([0.5, 0.5, 0.4], dtype=torch.float64))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_norms_without_a_median_are_refused_with_their_level(value, level):
    norms = torch.ones(7)
    norms[level == LEVELS] = value
    with pytest.raises(ValueError, match=f"level {level} cannot be placed: the median norm .* is {value:g}"):
        place_levels(norms, LEVELS, EDGES, leaf_norm=0.5, margin=0.1)
