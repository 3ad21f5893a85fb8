from __future__ import annotations

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch

from hf_hierrobust.hierarchy import TreeError, WordNet, load_forest, wordnet_tree
from hf_hierrobust.hierarchy.wordnet import plain_names
from hf_hierrobust.objectives import HierRobust

# wnid -> (lemmas, hypernyms, instance hypernyms): two ways up from "dog", the longer one through "canine"
SYNSETS = {
    "n00000001": (["entity"], [], []),
    "n00000002": (["living_thing"], ["n00000001"], []),
    "n00000003": (["artifact"], ["n00000001"], []),
    "n00000010": (["mammal"], ["n00000002"], []),
    "n00000011": (["pet"], ["n00000002"], []),
    "n00000012": (["canine"], ["n00000010"], []),
    "n00000013": (["dog", "domestic_dog"], ["n00000012", "n00000011"], []),
    "n00000014": (["wolf"], ["n00000012"], []),
    "n00000015": (["cat"], ["n00000010", "n00000011"], []),
    "n00000016": (["puppy"], ["n00000013"], []),
    "n00000020": (["crane"], ["n00000003"], []),
    "n00000021": (["crane"], ["n00000010"], []),
    "n00000022": (["crane", "stephen_crane"], [], ["n00000002"]),
    "n00000023": (["mammal"], ["n00000003"], []),
    "n00000024": (["ship"], ["n00000023"], []),
    "n00000025": (["maple"], ["n00000002"], []),
}


@pytest.fixture
def wordnet(tmp_path: Path) -> WordNet:
    columns = list(zip(*((wnid, *row) for wnid, row in SYNSETS.items())))
    names = ["wnid", "lemmas", "hypernyms", "instance_hypernyms"]
    types = [pyarrow.string()] + [pyarrow.list_(pyarrow.string())] * 3
    arrays = [pyarrow.array(column, type) for column, type in zip(columns, types)]
    pyarrow.parquet.write_table(pyarrow.table(dict(zip(names, arrays))), tmp_path / "nouns.parquet")
    return WordNet(tmp_path / "nouns.parquet")


def test_spanning_tree_takes_the_shortest_path_then_the_smaller_wnid(wordnet):
    lemmas = [wordnet.lemmas(wnid)[0] for wnid in wordnet.path("n00000016")]
    assert lemmas == ["entity", "living thing", "pet", "dog", "puppy"]
    assert wordnet.path("n00000015")[-2] == "n00000010"
    assert wordnet.common_ancestor(["n00000014", "n00000015"]) == "n00000010"
    assert wordnet.common_ancestor(["n00000014", "n00000020"]) == "n00000001"


def test_find(wordnet):
    assert wordnet.find("Domestic-Dog") == "n00000013" == wordnet.find("n00000013")
    assert wordnet.find("maple tree") == "n00000025"
    with pytest.raises(TreeError, match=r"'wolff' is no WordNet noun.*'wolf'"):
        wordnet.find("wolff")
    with pytest.raises(TreeError, match="no noun synset 'n99999999'"):
        wordnet.find("n99999999")
    with pytest.raises(TreeError, match=r"'crane' has the noun senses \['n00000020', 'n00000021'\]"):
        wordnet.find("crane")


def test_cuts_at_absolute_depths_pad_shallow_classes(wordnet):
    classes = ["puppy", "wolf", "cat", "ship", "crane", "maple"]
    tree = wordnet_tree(classes, cuts=(2, 1), senses={"crane": "n00000020"}, wordnet=wordnet)
    assert tree.levels_of("puppy") == ("puppy", "pet", "living thing")
    assert tree.levels_of("crane") == ("crane", "crane", "artifact")
    # the artifact called "mammal" may not share its prompt with the animals
    assert tree.levels_of("wolf")[1] == "mammal" and tree.levels_of("ship")[1] == "mammal (artifact)"
    assert tree.self_loops(0).tolist() == [False, False, False, False, True, True]


def test_cuts_are_chosen_under_the_constraints(wordnet):
    classes = ["puppy", "wolf", "cat", "ship", "maple"]
    for depth in (1, 2):
        sizes = wordnet_tree(classes, depth=depth, wordnet=wordnet).sizes
        assert len(sizes) == depth + 1 and list(sizes) == sorted(set(sizes), reverse=True) and sizes[-1] >= 2
    with pytest.raises(TreeError, match=r"depth=5 is not possible.*\[4, 2\] nodes"):
        wordnet_tree(classes, depth=5, wordnet=wordnet)


def test_a_class_above_another_class_keeps_one_key(wordnet):
    tree = wordnet_tree(["puppy", "dog", "wolf", "ship"], cuts=(3, 1), wordnet=wordnet)
    assert tree.levels_of("puppy") == ("puppy", "dog", "living thing")
    assert tree.levels_of("dog") == ("dog", "dog", "living thing")


def test_classes_of_one_synset_and_unused_senses_are_refused(wordnet):
    with pytest.raises(TreeError, match="'dog' and 'domestic dog' are both n00000013"):
        wordnet_tree(["dog", "domestic dog", "ship"], depth=1, wordnet=wordnet)
    with pytest.raises(TreeError, match=r"\['crane'\], which are not among"):
        wordnet_tree(["dog", "ship"], senses={"crane": "n00000020"}, wordnet=wordnet)


def test_wnids_get_readable_unique_prompt_names(wordnet):
    tree = wordnet_tree(["n00000020", "n00000021", "n00000014"], cuts=(1,), wordnet=wordnet)
    assert tree.display_names(0) == ["crane", "crane (mammal)", "wolf"]


def test_missing_wordnet_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HIERROBUST_WORDNET", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="apt-get install wordnet-base"):
        WordNet()


def test_database_directory_gives_the_same_tree_as_the_table(shared_dir):
    pytest.importorskip("nltk")
    directory = Path("/usr/share/wordnet")
    if not (directory / "data.noun").exists():
        pytest.skip("wordnet-base is not installed")
    database, table = WordNet(directory), WordNet(shared_dir / "data/hierarchy/wordnet30_nouns.parquet")
    assert database.find("crane") == "n03126707"  # ranked third, after two persons
    rows = pyarrow.parquet.read_table(shared_dir / "data/hierarchy/classes.parquet").to_pylist()
    senses = {row["clip_name"]: row["wnid"] for row in rows if row["dataset"] == "cifar100"}
    trees = [
        wordnet_tree(list(senses), depth=3, senses=senses, wordnet=source, name="cifar100-wordnet")
        for source in (database, table)
    ]
    assert trees[0] == trees[1]
    assert trees[0].hash == load_forest("cifar100-wordnet").hash


@pytest.fixture
def installed(wordnet, tmp_path, monkeypatch):
    """The small WordNet in the place where one is looked for."""
    monkeypatch.setenv("HF_HIERROBUST_WORDNET", str(tmp_path / "nouns.parquet"))


CLASSES = ["crane", "dog", "wolf", "cat"]


def embed(texts):
    """Embeddings in which animals lie on one side, artifacts on the other, and a crane by itself between."""
    sides = {"dog": 1.0, "wolf": 1.0, "cat": 1.0, "mammal": 1.0, "artifact": -1.0, "crane": 0.0}
    return torch.tensor([[next(s for word, s in sides.items() if word in t), 0.3] for t in texts])


def test_kind31_an_ambiguous_noun_is_decided_by_the_models_embeddings(installed, caplog):
    with caplog.at_level("WARNING"):
        (tree,) = load_forest("wordnet", CLASSES, embed=embed)
    assert tree.superclass("crane", tree.depth) == tree.superclass("cat", tree.depth)
    (message,) = caplog.messages
    assert "'crane' is taken for n00000021 (mammal), not for n00000020 (artifact)" in message
    assert "a class-set file with wnids decides otherwise" in message


def test_kind31_wnids_of_the_class_set_decide(installed, caplog):
    wnids = ["n00000020", "n00000013", "n00000014", "n00000015"]
    (tree,) = load_forest("wordnet", CLASSES, wnids=wnids, embed=embed)
    assert tree.superclass("crane", tree.depth) != tree.superclass("cat", tree.depth)
    assert not caplog.messages


def test_wnids_tell_classes_of_one_name_apart(installed):
    names, wnids = ["crane", "dog", "wolf", "Crane"], ["n00000020", "n00000013", "n00000014", "n00000021"]
    (tree,) = load_forest("wordnet", names, wnids=wnids)
    assert tree.leaves == ("crane", "dog", "wolf", "Crane (n00000021)")
    assert tree.superclass("Crane (n00000021)", 1) != tree.superclass("crane", 1)
    assert tree.align(names) == tree == load_forest(tree, names)[0]
    objective = HierRobust()
    objective.setup(names, tree)
    assert objective.nodes.names[:4] == tuple(names)
    with pytest.raises(TreeError, match="3 wnids are given for 4 classes"):
        load_forest("wordnet", names, wnids=wnids[:3])


def test_classes_of_one_name_without_wnids_are_refused_with_what_helps(installed):
    with pytest.raises(
        TreeError, match=r"'dog' and 'Dog \(3\)' are both n00000013.*class-set file with wnids"
    ):
        load_forest("wordnet", ["dog", "wolf", "cat", "Dog"])


def test_kind31_without_either_the_message_says_what_to_give(installed):
    with pytest.raises(TreeError, match=r"crane.*give a class-set file with wnids"):
        load_forest("wordnet", CLASSES)


def test_few_classes_get_as_many_levels_as_they_have(installed):
    assert load_forest("wordnet", ["dog", "wolf", "ship"])[0].depth == 1
    with pytest.raises(TreeError, match="depth=1 is not possible"):
        load_forest("wordnet", ["dog", "ship"])


def test_abstract_synsets_are_put_plainly_unless_a_node_is_called_so():
    found = plain_names({"artifact", "ware", "dog"}, taken={"tableware"})
    assert found == {"artifact": "man-made object"}
