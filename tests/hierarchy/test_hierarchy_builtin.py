from __future__ import annotations

import json
from importlib import resources

import pytest
import torch

from hf_hierrobust.data import load_class_set
from hf_hierrobust.hierarchy import LabelTree, TreeError, available_trees, load_forest

CLASSES = {"cifar10": 10, "cifar100": 100, "tinyimagenet": 200, "imagenet": 1000, "glyphs": 36}


@pytest.mark.parametrize("name", available_trees())
def test_shipped_trees_are_valid_and_say_where_they_come_from(name):
    forest = load_forest(name)
    assert len(forest.leaves) == CLASSES[name.split("-")[0]]
    for tree in forest:
        assert tree.source and tree.licence
        assert tree.sizes[-1] >= 2 and list(tree.sizes) == sorted(set(tree.sizes), reverse=True)
        assert not any("_" in text for level in range(tree.num_levels) for text in tree.display_names(level))


def test_shipped_trees_have_the_depth_they_are_said_to_have():
    assert load_forest("imagenet")[0].depth == load_forest("tinyimagenet")[0].depth == 5
    assert [tree.depth for tree in load_forest("cifar100-forest")] == [1, 3, 2]


def test_official_cifar100_superclasses_are_in_the_data_sets_order():
    tree = load_forest("cifar100")[0]
    assert tree.sizes == (100, 20)
    assert tree.ancestors(1).bincount().tolist() == [5] * 20
    assert tree.levels[1][:3] == ("aquatic mammals", "fish", "flowers") and tree.levels[1][-1] == "vehicles 2"
    assert tree.superclass("aquarium_fish", 1) == "fish" and tree.superclass("lawn_mower", 1) == "vehicles 2"


def test_leaves_match_the_class_names_of_the_data(shared_dir):
    import pyarrow.parquet as pq

    for name in ("cifar100-forest", "cifar10", "tinyimagenet"):
        folder = name.split("-")[0]
        info = json.loads(
            pq.read_schema(shared_dir / "data" / folder / "test.parquet").metadata[b"huggingface"]
        )
        names = info["info"]["features"]["label"]["names"]
        forest = load_forest(name).align(names)
        assert len(forest.leaves) == len(names) and forest.hash == load_forest(name).hash
        if name == "cifar100-forest":
            coarse = info["info"]["features"]["coarse_label"]["names"]
            assert [key.replace(" ", "_") for key in forest[0].levels[1]] == coarse


@pytest.mark.parametrize("name", sorted(set(CLASSES) - {"glyphs"}))
def test_leaves_and_their_prompts_match_the_shipped_class_sets(name):
    file = resources.files("hf_hierrobust.data").joinpath("class_sets", f"{name}.json")
    class_names = json.loads(file.read_text(encoding="utf-8"))["class_names"]
    tree = load_forest(name)[0]
    aligned = tree.align(class_names)
    assert len(aligned.leaves) == len(class_names) == CLASSES[name] and aligned.hash == tree.hash
    same = [text == want for text, want in zip(aligned.display_names(0), class_names)]
    # ImageNet publishes "missile" and "sunglasses" twice; a tree has to tell them apart
    assert same.count(False) == (2 if name == "imagenet" else 0)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "tinyimagenet", "imagenet"])
def test_every_shipped_class_set_has_a_forest_with_an_induced_tree(name):
    class_set = load_class_set(name)

    def embed(names):
        assert list(names) == list(class_set.class_names)
        unlike = torch.Generator().manual_seed(0)
        table = {text: torch.randn(8, generator=unlike) for text in dict.fromkeys(names)}  # as a model has it
        return torch.stack([table[text] for text in names])

    forest = load_forest([name, "induced"], class_set.class_names, embed=embed)
    assert [len(tree.leaves) for tree in forest] == [len(class_set)] * 2
    for tree in forest:
        for leaf, text in zip(tree.leaves, class_set.class_names):
            assert text == leaf or text in (tree.display.get(leaf), *tree.aliases.get(leaf, ()))
    assert forest.align(class_set.class_names) == forest
    assert LabelTree.from_json(forest[1].to_json()) == forest[1]


def test_lists_files_and_typos(tmp_path):
    forest = load_forest("cifar100, cifar100-induced")
    assert [tree.name for tree in forest] == ["cifar100", "cifar100-induced"]
    paths = {"dog": ["animal"], "cat": ["animal"], "bus": ["vehicle"]}
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    one.write_text(json.dumps(paths))
    two.write_text(json.dumps(dict(reversed(paths.items()))))
    assert load_forest(one).name == "one"
    assert load_forest(f"{one},{two}").leaves == ("dog", "cat", "bus")
    assert load_forest(load_forest(one)[0]) == load_forest(one)
    three = {
        "name": "three",
        "paths": {"Bus": ["x"], "kitty": ["y"], "dog_": ["x"]},
        "display": {"kitty": "cat"},
    }
    for classes in (None, ["dog", "cat", "bus"]):
        forest = load_forest([one, three], classes)
        assert forest.leaves == ("dog", "cat", "bus") and forest[1].leaves == ("dog_", "kitty", "Bus")
    with pytest.raises(
        TreeError, match=r"'cifar1000' is no built-in tree \(cifar10, .*did you mean 'cifar100'"
    ):
        load_forest("cifar1000")
    with pytest.raises(TreeError, match="differ in their leaves"):
        load_forest("cifar10,cifar100")
    with pytest.raises(TreeError, match="several trees are called 'cifar100'"):
        load_forest("cifar100-forest,cifar100")
