"""``tree show``: what it says is what the tree holds; help of the parsed commands comes without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_data import CLASSES

from hf_hierrobust.cli.main import main
from hf_hierrobust.cli.parser import PARSED
from hf_hierrobust.hierarchy import available_trees, load_forest
from hf_hierrobust.runs.trees import describe_trees, open_trees, trees_text

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("command", PARSED)
def test_help_takes_no_half_second(command):
    code = (
        "import sys, time; from hf_hierrobust.cli.main import main; main([sys.argv[1], '--help']);"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules); print(time.process_time())"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, command], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert float(said.stdout.splitlines()[-1]) < 0.5 and "--" in said.stdout


@pytest.mark.parametrize("name", available_trees())
def test_every_built_in_tree_is_described_by_its_own_numbers(name):
    for tree, facts in zip(load_forest(name), describe_trees(open_trees(name))):
        assert facts["hash"] == tree.hash and [level["nodes"] for level in facts["levels"]] == list(
            tree.sizes
        )
        for level in range(tree.depth):
            above = facts["levels"][level + 1]
            assert above["self_loops"] == int(tree.self_loops(level).sum())
            assert above["edges_from_below"] == len(tree.edges(level)[0])
        text = trees_text([facts])
        assert all(leaf in text for leaf in facts["levels"][0]["names"])


def test_a_self_loop_is_counted_and_shown_once(tmp_path, capsys):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"cat": ["animal"], "dog": ["animal"], "oak": ["oak"], "rose": ["flower"]}))
    main(["tree", "show", str(path), "--json", "--template", "a {}"])
    (facts,) = json.loads(capsys.readouterr().out)
    top = facts["levels"][1]
    assert (top["nodes"], top["self_loops"], top["edges_from_below"]) == (3, 1, 3)
    assert top["prompts"] == [["a animal"], ["a flower"], ["a oak"]]
    main(["tree", "show", str(path), "--prompts"])
    assert "This is a photo of a rose." in capsys.readouterr().out
    main(["tree", "show", str(path)])
    assert capsys.readouterr().out.splitlines()[-3:] == ["animal (2): cat, dog", "flower (1): rose", "oak"]


def test_the_tree_of_chosen_classes_and_one_from_embeddings(data_dir, tiny_clip_dir, capsys):
    main(["tree", "show", str(data_dir / "tiny.json"), "--classes", "rose, cat, dog", "--json"])
    (facts,) = json.loads(capsys.readouterr().out)
    assert facts["levels"][0]["names"] == ["rose", "cat", "dog"]
    names = [f"{a} {b}" for a in CLASSES for b in ("animal", "plant", "thing")]
    (induced,) = describe_trees(open_trees("induced", classes=names, model=tiny_clip_dir))
    assert induced["classes"] == 12 and induced["levels"][1]["nodes"] == 3


def test_the_figure_is_png_and_svg(tmp_path):
    pytest.importorskip("matplotlib", reason="figures need the extra 'plots'")
    from figure_checks import check_png

    main(["tree", "show", "cifar100-wordnet", "--figure", str(tmp_path / "sub/tree")])
    check_png(tmp_path / "sub/tree.png")
    assert "<svg" in (tmp_path / "sub/tree.svg").read_text()[:500]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["tree"], "required: show, SPEC"),
        (["tree", "cifar100"], "invalid choice: 'cifar100'"),
        (["tree", "show", "cifar101"], "did you mean 'cifar10"),
        (["tree", "show", "wordnet"], "built from the classes: give --classes"),
        (["tree", "show", "induced", "--classes", "a, b"], "give --model"),
        (["tree", "show", "cifar10", "--template", "photo"], "exactly once"),
        (["tree", "show", "cifar10", "--classes", "cat, dg"], "lacks 1 of the classes: 'dg'"),
        (["tree", "show", "cifar10", "--classes", "cfar10"], "'cfar10' is not built in"),
    ],
)
def test_wrong_words_are_answered_by_one_sentence(argv, says, capsys):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    said = capsys.readouterr().err.strip().splitlines()
    assert caught.value.code == 2 and says in said[-1] and len(said) == 1
