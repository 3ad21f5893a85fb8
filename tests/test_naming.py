"""What names may hold, and what records call things."""

from __future__ import annotations

import pytest

from hf_hierrobust.data import ClassSet, class_set_of, load_class_set
from hf_hierrobust.naming import check_name, check_template, public_name, source_name
from hf_hierrobust.objectives import CompTGA

HOSTILE = ["a\nb", "\r", "\x00", "x\x1b[2J", "\u2028", "\u202egpj", "\udc80"]


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_kind18_control_characters_are_refused_where_names_enter(text):
    with pytest.raises(ValueError, match=r"control character U\+|is empty"):
        check_name("name", text)
    for enter in (
        lambda: ClassSet(name=text, class_names=("a",)),
        lambda: ClassSet(name="x", class_names=("a", text)),
        lambda: ClassSet(name="x", class_names=("a",), templates=(text + "{}",)),
        lambda: ClassSet(name="x", class_names=("a",), source=text),
        lambda: ClassSet(name="x", class_names=("a",), licence=text),
        lambda: ClassSet(name="x", class_names=("a",), notes=text),
        lambda: ClassSet(name="x", class_names=("a",), aliases={text: 0}),
        lambda: check_template("template", text + "{}"),
        lambda: CompTGA(negative_template="no {}" + text),
    ):
        with pytest.raises(ValueError, match=r"control character|non-empty"):
            enter()
    assert all(char.isprintable() for char in public_name(f"data{text}"))


@pytest.mark.parametrize("longest", ["class_names", "templates", "source"])
def test_kind18_names_end(longest):
    values = {"class_names": ("c" * 201,), "templates": ("{}" + "t" * 2000,), "source": "s" * 2001}
    with pytest.raises(ValueError, match=r"has \d+ characters"):
        ClassSet(**({"name": "x", "class_names": ("a",)} | {longest: values[longest]}))
    assert len(public_name("n" * 5000)) == 200


def test_kind18_templates_of_arguments(tmp_path):
    from hf_hierrobust.training import RobustTrainingArguments

    for template in ("a photo\nof {}", "no place", "{} and {}", "x" * 2001 + "{}"):
        with pytest.raises(ValueError, match="template="):
            RobustTrainingArguments(output_dir=str(tmp_path), template=template)


def test_names_of_folders_reach_records_printable(tmp_path):
    folder = tmp_path / "x\n## What was measured"
    folder.mkdir()
    assert public_name(str(folder)) == "x?## What was measured"
    assert public_name("owner/name") == "owner/name"
    assert load_class_set("imagenet").name == "imagenet"


def test_a_long_path_is_no_long_name(tmp_path):
    from tiny_data import make_images

    found = class_set_of(make_images(4), name="/" + "folder/" * 60 + "mine")
    assert found.name == "mine"


def test_kind30_files_of_one_folder_have_different_names(tmp_path):
    folder = tmp_path / "pets"
    folder.mkdir()
    for name in ("train.parquet", "test.parquet", "cats.csv"):
        (folder / name).write_bytes(b"")
    names = [source_name(str(folder / name)) for name in ("train.parquet", "test.parquet", "cats.csv")]
    assert names == ["pets-train", "pets-test", "cats"]
    assert source_name(str(folder)) == source_name(f"{folder}/") == "pets"
    assert source_name(str(folder / "*.parquet")) == source_name(str(folder / "train-0[01].csv")) == "pets"
    assert source_name("me/birds") == "me/birds" and source_name("me/birds-v1.5") == "me/birds-v1.5"
    assert source_name("glyphs") == "glyphs"
