"""Class trees: reading, checking and building the superclasses of a set of classes."""

from .builtin import available_trees
from .checks import TreeError
from .forest import Forest, as_forest
from .generated import generated_tree
from .induced import induced_tree
from .nodes import node_names
from .specs import TreeSpec, load_forest
from .tree import LabelTree
from .wordnet import WordNet, wordnet_tree

__all__ = [
    "Forest",
    "LabelTree",
    "TreeError",
    "TreeSpec",
    "WordNet",
    "as_forest",
    "available_trees",
    "generated_tree",
    "induced_tree",
    "load_forest",
    "node_names",
    "wordnet_tree",
]
