"""Training and evaluation ask the same prompts at every node."""

from __future__ import annotations

import pytest

from hf_hierrobust.classifiers import level_prompts
from hf_hierrobust.data import ClassSet, load_class_set
from hf_hierrobust.hierarchy import LabelTree, load_forest
from hf_hierrobust.objectives.base import TextNodes


def own_tree():
    """A class too shallow for the upper levels, which the tree calls otherwise than the data set."""
    paths = {"cat": ["animal", "thing"], "dog": ["animal", "thing"], "oak_tree": ["oak_tree", "thing"]}
    tree = LabelTree.from_paths(paths, name="own", display={"oak_tree": "English oak"})
    return tree, ClassSet.from_names(["cat", "dog", "oak tree"])


def builtin(tree: str, classes: str):
    return load_forest(tree).trees[0], load_class_set(classes)


@pytest.mark.parametrize(
    "case",
    [own_tree, lambda: builtin("imagenet", "imagenet"), lambda: builtin("cifar100-wordnet", "cifar100")],
    ids=["own", "imagenet", "cifar100-wordnet"],
)
def test_kind06_training_and_evaluation_ask_the_same_prompts(case):
    tree, class_set = case()
    tree = tree.align(class_set.class_names)
    nodes = TextNodes.of_forest(class_set.class_names, [tree])
    trained = nodes.fill("a {}.")
    evaluated = level_prompts(class_set, tree, "a {}.")
    for level, rows in enumerate(nodes.rows[0]):
        assert [[trained[row]] for row in rows] == evaluated[level]
