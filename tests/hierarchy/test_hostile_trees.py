"""Trees that someone else wrote: names that reach files, cards and prompts, and sizes that never end."""

from __future__ import annotations

import json
import time

import pytest

from hf_hierrobust.hierarchy import Forest, LabelTree, TreeError, load_forest

PATHS = {"cat": ["animal"], "dog": ["animal"], "bus": ["vehicle"]}


@pytest.mark.parametrize(
    "name",
    [
        "../../x",
        "/etc/x",
        "..\\x",
        "a/b",
        ".hidden",
        "x.",
        "C:x",
        "a\x00b",
        "a\nb",
        "x" * 201,
        "",
        " ",
        None,
        3,
        "safe\u202egpj",
    ],
)
def test_kind18_a_trees_name_is_no_path_and_has_no_control_characters(name, tmp_path):
    with pytest.raises(TreeError, match="a tree's name="):
        LabelTree.from_paths(PATHS, name=name)
    (tmp_path / "tree.json").write_text(json.dumps({"name": name, "paths": PATHS}))
    if name:  # a file's own name stands in for none
        with pytest.raises(TreeError, match=r"tree\.json: a tree's name="):
            load_forest(tmp_path / "tree.json")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": "a\n## What was measured"}, "source=.*U\\+000A"),
        ({"licence": "MIT\r"}, "licence=.*U\\+000D"),
        ({"licence": ["MIT"]}, "licence=.*must be text"),
        ({"source": "s" * 2001}, "source=.*2001 characters"),
        ({"display": {"cat": "a\u2028b"}}, "display name of 'cat'=.*U\\+2028"),
        ({"display": {"cat": "c" * 300}}, "display name of 'cat'=.*300 characters"),
        ({"display": [1]}, "display"),
        ({"paths": {**PATHS, "tr\tam": ["vehicle"]}}, "node=.*U\\+0009"),
        ({"paths": {**PATHS, "tram": ["\ud800"]}}, "node=.*U\\+D800"),
    ],
)
def test_kind18_every_text_of_a_tree_is_one_line(changes, words):
    with pytest.raises(TreeError, match=words):
        LabelTree.from_json({"name": "t", "paths": PATHS} | changes)


def test_ordinary_names_of_any_language_pass():
    tree = LabelTree.from_paths(
        {"кот": ["动物"], "собака": ["动物"], "क्\u200dष": ["x (y), 'z' & <w>"]}, name="мои-классы 2"
    )
    assert load_forest(tree.to_json()).hash == tree.hash


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        ({c: [f"n{i}" for i in range(4000)] for c in ("a", "b")}, "has 4,000 ancestors: at most 32"),
        ({f"c{i}": ["x" if i % 2 else "y"] for i in range(60_000)}, "has 60,000 classes: at most 50,000"),
        ({"a": "x" * 10_000_000}, "must be a list of ancestors"),
        ({"a": [["x"] * 100_000]}, "gap in the path"),
    ],
    ids=["deep", "wide", "text", "nested"],
)
def test_kind19_hostile_sizes_meet_one_line_at_once(paths, words):
    start = time.process_time()
    with pytest.raises(TreeError, match=words) as caught:
        LabelTree.from_json({"paths": paths})
    assert time.process_time() - start < 1
    assert len(str(caught.value)) < 600 and "\n" not in str(caught.value)


def test_kind19_a_class_set_of_strangers_is_refused_in_time():
    tree = LabelTree.from_paths({f"class number {i}": [f"group {i % 40}"] for i in range(2000)}, name="t")
    start = time.process_time()
    with pytest.raises(TreeError, match="lacks 2000 of the classes") as caught:
        tree.align([f"other thing {i}" for i in range(2000)])
    assert time.process_time() - start < 5 and len(str(caught.value)) < 2000


def test_load_forest_takes_what_a_user_has(tmp_path):
    tree = LabelTree.from_paths(PATHS, name="mine")
    (tmp_path / "mine.json").write_text(json.dumps(PATHS))
    for spec in (
        tree,
        Forest((tree,)),
        PATHS,
        tree.to_json(),
        tmp_path / "mine.json",
        str(tmp_path / "mine.json"),
        [tree],
    ):
        assert load_forest(spec).hash == tree.hash
    (tmp_path / "a, b.json").write_text(json.dumps(PATHS))
    assert load_forest(str(tmp_path / "a, b.json")).name == "a, b"
    two = load_forest([tree, {"name": "other", "paths": PATHS}], class_names=["bus", "dog", "cat"])
    assert two.leaves == ("bus", "dog", "cat") and two.name == "mine+other"
    with pytest.raises(TreeError, match="several trees are called 'tree'"):
        load_forest([PATHS, PATHS])
    for wrong, words in (
        (3, "is a int"),
        ([], "names no tree"),
        ("", "tree='' is no built-in tree"),
        ("wordnet", "give class_names"),
    ):
        with pytest.raises(TreeError, match=words):
            load_forest(wrong)


def test_trees_that_are_built_from_the_classes():
    import torch

    names = [f"{kind} {i}" for kind in ("red", "blue") for i in range(6)]

    def embed(texts):
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(len(texts), 8, generator=generator) * 0.1
        return noise + torch.tensor([[1.0 if t.startswith("red") else -1.0] for t in texts])

    forest = load_forest("induced", names, embed=embed)
    assert forest.leaves == tuple(names) and forest.name == "induced"
    with pytest.raises(TreeError, match="give embed"):
        load_forest("induced", names)
    with pytest.raises(TreeError, match="at least 8 classes"):
        load_forest("induced", names[:3], embed=embed)
    asked = []

    def language_model(name):
        asked.append(name)
        return lambda prompt: "\n".join(f"{n}: {n.split()[0]} thing" for n in names)

    forest = load_forest("generated:some/model", names, language_model=language_model)
    assert asked == ["some/model"] and forest[0].levels[1] == ("blue thing", "red thing")
    assert forest[0].source == "generated by some/model"
    with pytest.raises(TreeError, match="give its id behind the colon"):
        load_forest("generated:", names, language_model=language_model)
