from __future__ import annotations

import copy
import json
import pickle

import pytest
import torch

from hf_hierrobust.hierarchy import Forest, LabelTree, TreeError, as_forest

PATHS = {
    "truck": ["vehicle", "thing"],
    "dog": ["mammal", "animal"],
    "cat": ["mammal", "animal"],
    "maple_tree": ["maple_tree", "thing"],
    "trout": ["trout", "animal"],
    "bus": ["vehicle", "thing"],
}


@pytest.fixture
def tree() -> LabelTree:
    return LabelTree.from_paths(
        PATHS, name="toy", display={"maple_tree": "maple tree"}, source="s", licence="l"
    )


def test_levels_keep_leaf_order_and_sort_the_rest(tree):
    assert tree.leaves == tuple(PATHS)
    assert tree.levels[1] == ("mammal", "maple_tree", "trout", "vehicle")
    assert (tree.sizes, tree.num_levels, tree.depth) == ((6, 4, 2), 3, 2)
    assert tree.display_names(0)[3] == tree.display_names(1)[1] == "maple tree"


def test_ancestors_agree_with_the_paths_and_compose(tree):
    for level in range(tree.num_levels):
        for leaf, index in zip(tree.leaves, tree.ancestors(level).tolist()):
            assert tree.levels[level][index] == (leaf, *PATHS[leaf])[level] == tree.superclass(leaf, level)
    assert torch.equal(tree.ancestor_map(1, 2)[tree.ancestors(1)], tree.ancestors(2))
    assert tree.levels_of("Maple-Tree") == ("maple_tree", "maple_tree", "thing")
    with pytest.raises(TreeError, match=r"'dgo'.*nearest: 'dog'"):
        tree.levels_of("dgo")
    for bad in (-1, 3):
        with pytest.raises(TreeError, match=r"levels are 0\.\.2"):
            tree.ancestors(bad)
    with pytest.raises(TreeError, match="must not exceed"):
        tree.ancestor_map(2, 0)


def test_self_loops_are_padding_and_no_edges_but_are_joined_for_hnsa(tree):
    assert tree.self_loops(0).tolist() == [leaf in ("maple_tree", "trout") for leaf in tree.leaves]
    assert tree.self_loops(1).tolist() == [False] * 4
    child, parent = tree.edges(0)
    named = {(tree.levels[0][c], tree.levels[1][p]) for c, p in zip(child.tolist(), parent.tolist())}
    assert named == {("truck", "vehicle"), ("bus", "vehicle"), ("dog", "mammal"), ("cat", "mammal")}
    mask = tree.edge_mask(0, 1)
    assert mask.shape == (6, 4) and mask.sum(1).eq(1).all()
    assert mask[3].nonzero().item() == tree.levels[1].index("maple_tree")
    assert torch.equal(tree.edge_mask(1, 0), mask.T)
    assert tree.edge_mask(1, 2).sum(0).tolist() == [2, 2]
    with pytest.raises(TreeError, match="adjacent"):
        tree.edge_mask(0, 2)


def test_json_round_trip_and_hash(tree, tmp_path):
    file = tmp_path / "toy.json"
    file.write_text(json.dumps(tree.to_json()))
    again = LabelTree.from_json(file)
    assert again == tree and again.hash == tree.hash and len(tree.hash) == 16
    assert LabelTree.from_json(PATHS).name == "tree"
    file.write_text(json.dumps(PATHS))
    assert LabelTree.from_json(file).name == "toy"
    backwards = LabelTree.from_paths(dict(reversed(PATHS.items())), name="x", display=tree.display)
    assert backwards.hash == tree.hash
    renamed = LabelTree.from_paths(PATHS, name="toy", display={"maple_tree": "maple"})
    moved = LabelTree.from_paths(PATHS | {"trout": ["trout", "thing"]}, name="toy", display=tree.display)
    assert len({tree.hash, renamed.hash, moved.hash}) == 3
    assert copy.deepcopy(tree) == tree == pickle.loads(pickle.dumps(tree)) and hash(tree) == hash(again)


def test_align_orders_drops_and_names_the_missing(tree):
    aligned = tree.align(["Cat", "maple tree", "bus", "TRUCK", "dog"])
    assert aligned.leaves == ("cat", "maple_tree", "bus", "truck", "dog")
    assert aligned.levels[1:] == (("mammal", "maple_tree", "vehicle"), ("animal", "thing"))
    assert aligned.superclass("dog", 2) == "animal"
    assert tree.align(list(reversed(PATHS))).hash == tree.hash
    with pytest.raises(TreeError, match=r"lacks 2 .*'trouts' \(nearest: 'trout'\), 'xyzzy'$"):
        tree.align(["dog", "trouts", "xyzzy"])
    with pytest.raises(TreeError, match=r"repeat.*dog"):
        tree.align(["dog", "Dog"])
    twins = [name if name != "bus" else "dog" for name in PATHS]
    with pytest.raises(TreeError, match=r"repeat: 'dog' \(class 1\) and 'dog' \(class 5\).*5, 'bus', is not"):
        tree.align(twins)
    with pytest.warns(UserWarning, match=r"levels \[1\] merge nothing"):
        assert tree.align(["dog", "trout", "bus"]).sizes == (3, 2)


def test_align_matches_prompt_names_after_keys():
    tree = LabelTree.from_paths(
        {"tabby": ["pet"], "hog": ["farm"], "ox": ["farm"]},
        name="t",
        display={"tabby": "tabby cat", "hog": "pig"},
    )
    assert tree.align(["pig", "Tabby Cat", "ox"]).leaves == ("hog", "tabby", "ox")


TWINS = {"missile": ["craft"], "rocket": ["craft"], "projectile": ["weapon"], "arrow": ["weapon"]}
PUBLISHED = {"projectile": ["missile"]}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["missile", "rocket", "Missile", "arrow"], None),
        (["missile", "missile", "rocket", "arrow"], r"'missile' \(class 0\) and 'missile' \(class 1\)"),
        (["missile", "rocket", "arrow", "missile"], r"'missile' \(class 0\) and 'missile' \(class 3\)"),
        (["missile", "rocket", "missile"], r"both mean the leaf 'missile' of tree 't'\. Rename"),
        (["rocket", "rocket", "projectile", "arrow"], r"place 0, 'missile'|'rocket' \(class 1\)"),
    ],
)
def test_repeated_names_go_by_place_only_where_every_leaf_is_called_so(names, message):
    tree = LabelTree.from_paths(TWINS, name="t", aliases=PUBLISHED)
    if message is None:
        assert tree.align(names) == tree == tree.align(names).align(names)
        return
    with pytest.raises(TreeError, match=message):
        tree.align(names)


def test_two_names_of_one_leaf_leave_no_class_to_another():
    paths = {"crane": ["bird"], "heron": ["bird"], "digger": ["machine"], "bus": ["machine"]}
    tree = LabelTree.from_paths(paths, name="t", display={"crane": "crane bird"})
    with pytest.raises(TreeError, match=r"'crane' .*'crane bird' .*place 1, 'heron', is not called so"):
        tree.align(["crane", "crane bird", "digger", "bus"])
    with pytest.raises(TreeError, match=r"'crane' \(class 0\) and 'crane bird' \(class 1\)"):
        tree.align(["crane", "crane bird"])


def test_a_name_that_several_leaves_have_goes_by_place_or_is_refused():
    paths = {"crane 1": ["bird"], "heron": ["bird"], "crane 2": ["machine"], "bus": ["machine"]}
    tree = LabelTree.from_paths(paths, name="t", aliases={"crane 1": ["crane"], "crane 2": ["crane"]})
    assert tree.align(["crane", "heron", "crane", "bus"]) == tree
    for names in (["crane", "heron", "bus"], ["crane", "crane", "heron", "bus"]):
        with pytest.raises(TreeError, match=r"'crane' may be any of the leaves \['crane 1', 'crane 2'\]"):
            tree.align(names)
    with pytest.raises(TreeError, match="may be any"):
        tree.levels_of("crane")
    assert tree.align(["crane 2", "bus", "heron", "crane 1"]).superclass("crane 2", 1) == "machine"


def test_aliases_are_names_of_leaves_outside_the_hash(tmp_path):
    tree = LabelTree.from_paths(TWINS, name="t", aliases=PUBLISHED | {"arrow": ["Dart"]})
    assert tree.align(["dart", "rocket", "missile"]).leaves == ("arrow", "rocket", "missile")
    assert tree.hash == LabelTree.from_paths(TWINS, name="t").hash
    (tmp_path / "t.json").write_text(json.dumps(tree.to_json()))
    assert LabelTree.from_json(tmp_path / "t.json") == tree and "aliases" in tree.to_json()
    for aliases, message in (
        ({"arow": ["x"]}, r"unknown leaf 'arow' \(nearest: 'arrow'\)"),
        ({"craft": ["x"]}, "unknown leaf 'craft'"),
        ({"arrow": "dart"}, "aliases of 'arrow' must be a list"),
        ({"arrow": ["a\nb"]}, "an alias of 'arrow'"),
        ({"arrow": [1]}, "an alias of 'arrow'"),
        (["arrow"], "aliases must map"),
    ):
        with pytest.raises(TreeError, match=message):
            LabelTree.from_json({"paths": TWINS, "aliases": aliases})


@pytest.mark.parametrize(
    ("paths", "display", "message"),
    [
        ({}, None, "non-empty mapping"),
        ({"a": "x"}, None, "path of class 'a' must be a list"),
        ({"a": ["x", "y"], "b": ["x"], "c": ["x", "y"]}, None, "class 'b' has 1 ancestors"),
        ({"a": ["x"], "b": [None], "c": ["x"]}, None, "gap in the path of class 'b'"),
        ({"a": ["x"], "b": [""], "c": ["x"]}, None, "gap in the path of class 'b'"),
        ({"a": ["x", "y"], "b": ["x", "z"], "c": ["x", "y"]}, None, "'x' of level 1 has two parents.*'b'"),
        ({"a": ["b", "c"], "d": ["c", "b"], "e": ["c", "b"]}, None, "cycle: 'b' -> 'c' -> 'b'"),
        ({"a": ["x"], "x": ["y"], "b": ["y"]}, None, "leaf 'x' .*also an ancestor of class 'a'"),
        ({"a": ["x", "y"], "b": ["y", "z"], "c": ["x", "y"]}, None, "node of level 1 'y'"),
        ({"a_b": ["x"], "A B": ["x"], "c": ["y"]}, None, "duplicate leaves 'a_b' and 'A B'"),
        ({"a": ["a"], "b": ["b"]}, None, "level 1 refines nothing.*'a' -> 'a'"),
        ({"a": ["x", "u"], "b": ["x", "u"], "c": ["y", "v"]}, None, "level 2 refines nothing.*'x' -> 'u'"),
        ({"a": ["x"], "b": ["x"], "c": ["y"]}, {"aa": "A"}, "unknown leaf or node 'aa'"),
        ({"a": ["x"], "b": ["x"], "c": ["y"]}, {"a": " "}, "display name of 'a'"),
        ({"a": ["x"], "b": ["x"], "c": ["y"]}, {"a": "B"}, "'a' and 'b' of level 0 share the display name"),
        ({"a": ["x"], "b": ["x"], "c": ["y"]}, {"c": "x"}, "'c' of level 0 and 'x' of level 1 share"),
    ],
)
def test_bad_trees_are_refused_by_name(paths, display, message):
    with pytest.raises(TreeError, match=message):
        LabelTree.from_paths(paths, name="bad", display=display)


def test_a_class_may_be_an_ancestor_where_its_own_path_is_padded():
    paths = {"woman": ["woman", "person"], "girl": ["woman", "person"]}
    paths |= {animal: [animal, "animal"] for animal in ("dog", "cow")}
    tree = LabelTree.from_paths(paths, name="t")
    assert tree.self_loops(0).tolist() == [True, False, True, True]
    assert tree.edge_mask(0, 1)[:, tree.levels[1].index("woman")].tolist() == [True, True, False, False]


def test_root_and_flat_trees_are_accepted():
    assert (
        LabelTree.from_paths({"a": ["x", "root"], "b": ["x", "root"], "c": ["y", "root"]}, name="t").sizes[-1]
        == 1
    )
    flat = LabelTree.from_paths({"a": [], "b": []}, name="flat")
    assert (flat.depth, flat.ancestors(0).tolist()) == (0, [0, 1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": ["x"], "b": ["x"], "a": ["y"]}', "bad.json: duplicate key 'a'"),
        ('{"paths": {"a": ["x"], "b": ["x"], "a": ["y"]}}', "bad.json: duplicate key 'a'"),
        ("{", "bad.json is not JSON"),
        ("[1]", "must be a JSON object|is a JSON object"),
        ('{"paths": {"a": ["x"]}, "colour": 1}', "unknown keys.*colour"),
    ],
)
def test_bad_json_is_refused(tmp_path, text, message):
    file = tmp_path / "bad.json"
    file.write_text(text)
    with pytest.raises(TreeError, match=message):
        LabelTree.from_json(file)


def test_direct_construction_checks_parents():
    with pytest.raises(TreeError, match="index in the next level"):
        LabelTree("t", (("a", "b"), ("x",)), ((0, 1),))


def test_forest_shares_leaves(tree):
    other = LabelTree.from_paths({leaf: ["a" if leaf < "d" else "b"] for leaf in PATHS}, name="other")
    forest = Forest((tree, other))
    assert [t.name for t in forest] == ["toy", "other"] and forest.name == "toy+other" and len(forest) == 2
    assert forest.leaves == tree.leaves and forest[1] is other
    assert as_forest(tree).hash == tree.hash != forest.hash != Forest((other, tree)).hash
    assert as_forest(forest) is forest and as_forest([tree, other]) == forest
    assert forest.align(["bus", "dog", "trout", "cat"]).leaves == ("bus", "dog", "trout", "cat")
    with pytest.raises(TreeError, match="differ in their leaves, first at 'truck' against 'bus'"):
        Forest((tree, other.align(list(reversed(PATHS)))))
    with pytest.raises(TreeError, match="only 'toy' has the leaf 'bus'"):
        Forest((tree, other.align(list(PATHS)[:5])))
    with pytest.raises(TreeError, match="at least one"):
        Forest(())


def test_a_forest_takes_leaves_of_one_class_under_different_keys():
    one = LabelTree.from_paths(TWINS, name="one", aliases=PUBLISHED)
    keys = {"Missile": ["x"], "rocket": ["x"], "missile (2)": ["y"], "ARROW": ["y"]}
    two = LabelTree.from_paths(keys, name="two", aliases={"missile (2)": ["missile"]})
    names = ["missile", "rocket", "missile", "arrow"]
    forest = Forest((one, two)).align(names)
    assert [tree.leaves for tree in forest] == [tuple(TWINS), tuple(keys)]
    swapped = one.align(["projectile", "rocket", "missile", "arrow"])
    with pytest.raises(TreeError, match="first at 'missile' against 'projectile'"):
        Forest((one, swapped))
    with pytest.raises(TreeError, match="first at 'rocket' against 'missile"):
        Forest((one, two.align(["missile", "missile (2)", "rocket", "arrow"])))


def test_as_forest_refuses_other_things():
    with pytest.raises(TypeError, match="LabelTree"):
        as_forest(["cifar100"])
