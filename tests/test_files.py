"""Files are read within limits, and every fault of one is a line that names it."""

from __future__ import annotations

import json
import time

import pytest

from hf_hierrobust.files import MAX_JSON_BYTES, FileFormatError, read_json, read_yaml

BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "\n".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]" for old, new in zip("abcdefgh", "bcdefghi")
)
MERGES = "a0: &a0 {k: 1}\n" + "\n".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "once its aliases are written out"),
        (MERGES, "once its aliases are written out"),
        ("a: &a\n  b: *a", "alias contains itself"),
        ("[" * 100_000, "nests too deeply"),
        ("a: 1\n" * 60_000, "larger than 256 KiB"),
        ("a: 1\nb: 2\na: 3", "duplicate key 'a'"),
        ("a: [1", "is not YAML"),
        ("a: !!python/object/apply:os.system ['true']", "is not YAML"),
        ("a: 2001-99-99", "is not YAML"),
    ],
    ids=["aliases", "merges", "loop", "deep", "long", "twice", "torn", "code", "date"],
)
def test_kind19_hostile_yaml(tmp_path, text, words):
    (tmp_path / "c.yaml").write_text(text)
    start = time.process_time()
    with pytest.raises(FileFormatError, match=words) as caught:
        read_yaml(tmp_path / "c.yaml")
    assert time.process_time() - start < 5
    assert "c.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_ordinary_yaml_with_an_alias(tmp_path):
    (tmp_path / "c.yaml").write_text("base: &b {x: 1}\nmore: {<<: *b, y: [1, 2]}\n")
    assert read_yaml(tmp_path / "c.yaml")["more"] == {"x": 1, "y": [1, 2]}
    (tmp_path / "e.yaml").write_text("# nothing\n")
    assert read_yaml(tmp_path / "e.yaml") is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "is not JSON"),
        (b'{"a": 1, "a": 2}', "duplicate key 'a'"),
        (b"[" * 200_000, "nests too deeply"),
        (b"9" * 10_000, "is not JSON"),
        (b"\xff\xfe\x00", "no UTF-8"),
    ],
    ids=["torn", "twice", "deep", "number", "bytes"],
)
def test_kind19_hostile_json(tmp_path, content, words):
    (tmp_path / "c.json").write_bytes(content)
    with pytest.raises(FileFormatError, match=words) as caught:
        read_json(tmp_path / "c.json")
    assert "c.json" in str(caught.value) and "\n" not in str(caught.value)


def test_kind19_json_of_any_size_costs_its_limit_at_most(tmp_path):
    with (tmp_path / "c.json").open("wb") as stream:
        stream.truncate(40 * MAX_JSON_BYTES)  # sparse
    with pytest.raises(FileFormatError, match="larger than 65,536 KiB"):
        read_json(tmp_path / "c.json")


def test_json_with_a_byte_order_mark(tmp_path):
    (tmp_path / "c.json").write_text("\ufeff" + json.dumps({"ä": 1}), encoding="utf-8")
    assert read_json(tmp_path / "c.json") == {"ä": 1}


def test_kind19_a_hostile_readme_header_is_text_that_stays(tmp_path):
    from hf_hierrobust.readme import split_header

    for header in (BOMB, "[" * 5000, "a: 2001-99-99", "a: &a\n  b: *a"):
        text = f"---\n{header}\n---\nbody"
        assert split_header(text) == ({}, text)
    assert split_header("---\nlicense: mit\n---\nbody") == ({"license": "mit"}, "body")
