"""Classes that a data set calls by one name, padded over the levels of a tree."""

from __future__ import annotations

import torch

from hf_hierrobust.data import load_class_set
from hf_hierrobust.hierarchy import LabelTree, load_forest
from hf_hierrobust.objectives import HierRobust

PATHS = {
    "missile": ["missile"],
    "projectile": ["projectile"],
    "rose": ["plant"],
    "oak": ["plant"],
}


def test_kind06_a_padded_twin_is_no_hard_negative_of_itself():
    tree = LabelTree.from_paths(PATHS, name="t", aliases={"projectile": ["missile"]})
    objective = HierRobust()
    objective.setup(["missile", "missile", "rose", "oak"], tree)
    (tree,), (rows,) = objective.forest.trees, objective.nodes.rows
    upper = tree.levels[1]
    for level, place in ((0, lambda node: node), (1, upper.index)):
        index, joined = objective._competitors(tree, rows, level)
        further = index[len(rows[level]) :]
        for node in ("missile", "projectile"):
            mine = joined[place(node) if level else tree.leaves.index(node)]
            asked = {objective.nodes.names[row] for row, same in zip(further, mine) if not same}
            assert "missile" not in asked and asked


def test_kind06_no_node_of_the_imagenet_tree_is_its_own_hard_negative():
    names = load_class_set("imagenet").class_names
    objective = HierRobust()
    objective.setup(names, load_forest("imagenet"))
    (tree,), (rows,) = objective.forest.trees, objective.nodes.rows
    texts = objective.nodes.names
    for level in range(tree.num_levels):
        index, joined = objective._competitors(tree, rows, level)
        own, further = rows[level], index[len(rows[level]) :]
        same = torch.tensor([[texts[a] == texts[b] for b in further.tolist()] for a in own.tolist()])
        assert not (same & ~joined).any()
