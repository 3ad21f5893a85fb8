"""Overwriting takes all that a former run left, and nothing else; nothing goes without being asked to."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from cli_fixtures import command_line

from hf_hierrobust.cli.train import main
from hf_hierrobust.training import remove_earlier_run

OPTIONS = {
    "objective": "hier_robust",
    "max_steps": 2,
    "save_strategy": "steps",
    "save_steps": 1,
    "eval_samples": 4,
    "eval_classifiers": "cosine",
}


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


FOREIGN = {
    ".env": "HF_TOKEN=secret",
    "notes.txt": "mine",
    "my.tree.json": "{}",
    "model.pkl": "pickle",
    "data/config.json": "{}",
    "data/tokenizer.json": "{}",
    "figures/mine.png": "a picture",
    "checkpoint-1/notes.txt": "what I saw at step 1",
    "checkpoints/model.safetensors": "weights of another tool",
    "adapter/notes.txt": "mine too",
}


@pytest.fixture(scope="module")
def one_run(tiny_clip_dir, data_dir, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("one") / "out"
    main(command_line(tiny_clip_dir, data_dir, output).argv(**OPTIONS))
    return output


@pytest.fixture()
def finished(one_run, command) -> Path:
    """The folder of a finished run, with figures, trees and a card."""
    return shutil.copytree(one_run, command.options["output_dir"])


def test_kind21_a_run_without_figures_and_tree_keeps_none_of_the_former(finished, command):
    before = files(finished)
    assert {
        "tiny.tree.json",
        "figures/before_after.png",
        "README.md",
        "base.json",
        "run.json",
    } <= before.keys()
    changes = {
        "objective": "tecoa",
        "tree": None,
        "figures": "false",
        "save_strategy": "no",
        "eval_base": "false",
    }
    main(command.argv(**OPTIONS | changes, overwrite_output_dir="true"))
    after = files(finished)
    gone = {name for name in before if name.startswith(("figures/", "checkpoint-"))}
    assert not after.keys() & (gone | {"tiny.tree.json", "base.json"})
    assert b"hier_robust" not in after["README.md"] and b"figures/" not in after["README.md"]


def test_kind21_foreign_files_stay(finished):
    for name, text in FOREIGN.items():
        (finished / name).parent.mkdir(exist_ok=True)
        (finished / name).write_text(text)
    (finished / "link").symlink_to(finished.parent)
    remove_earlier_run(finished)
    assert files(finished) == {name: text.encode() for name, text in FOREIGN.items()}
    assert (finished / "link").is_symlink()


def test_kind21_what_others_wrote_into_the_card_stays(finished):
    card = finished / "README.md"
    card.write_text(card.read_text() + "\n## My notes\n\nDo not lose me.\n")
    remove_earlier_run(finished)
    assert "Do not lose me." in card.read_text() and "hier_robust" not in card.read_text()


def test_kind21_a_readme_without_our_card_is_not_touched(finished):
    (finished / "README.md").write_text("# Mine\n\nhier_robust was here.\n")
    remove_earlier_run(finished)
    assert files(finished) == {"README.md": b"# Mine\n\nhier_robust was here.\n"}


def test_kind21_links_are_not_followed(finished, tmp_path):
    """A checkpoint folder or a figures folder that leads elsewhere: what lies there is not ours to delete."""
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "checkpoint-7").mkdir(parents=True)
    (elsewhere / "checkpoint-7" / "model.safetensors").write_text("kept")
    (finished / "checkpoint-7").symlink_to(elsewhere / "checkpoint-7")
    remove_earlier_run(finished)
    assert (elsewhere / "checkpoint-7" / "model.safetensors").read_text() == "kept"


def test_kind21_a_directory_without_a_run_is_not_touched(tmp_path):
    names = ("tokenizer.json", "vocab.json", "optimizer.pt", "a.tmp")
    for name in names:
        (tmp_path / name).write_text("mine")
    remove_earlier_run(tmp_path)
    assert sorted(files(tmp_path)) == sorted(names)


def test_kind12_nothing_goes_without_being_asked(finished, command, capsys):
    before = files(finished)
    with pytest.raises(SystemExit):
        main(command.argv(**OPTIONS))
    words = r"--resume_from_checkpoint true goes on.*--overwrite_output_dir true"
    assert re.search(words, capsys.readouterr().err)
    assert files(finished) == before


def test_verdicts_of_another_run_are_refused_before_anything_is_loaded(command, tmp_path, monkeypatch):
    from hf_hierrobust.runs import train

    class Loaded(Exception):
        pass

    def load_run(*args):
        raise Loaded

    monkeypatch.setattr(train, "load_run", load_run)
    folder = tmp_path / "state" / "trained"
    folder.mkdir(parents=True)
    for name in ("manifest.json", "verdicts-0.jsonl"):
        (folder / name).write_text("{}")
    argv = command.argv(**OPTIONS, state_dir=tmp_path / "state")
    with pytest.raises(SystemExit):
        main(argv)
    for more in (["--resume_from_checkpoint", "true"], ["--overwrite_output_dir", "true"]):
        assert len(list(folder.iterdir())) == 2
        with pytest.raises(Loaded):
            main([*argv, *more])
    assert not list(folder.iterdir())
