"""``report`` from the command line."""

from __future__ import annotations

import pytest
from example_records import make_record

from hf_hierrobust.cli.main import main
from hf_hierrobust.evaluation.record_files import record_line, save_records


def test_merges_files_and_says_what_it_left_out(tmp_path, capsys):
    save_records(tmp_path / "a.jsonl", [make_record()])
    torn = record_line(make_record(seed=1)) + record_line(make_record(seed=2))[:99]
    (tmp_path / "b.jsonl").write_text(torn, encoding="utf-8")
    argv = ["report", str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl"), "-o", str(tmp_path / "out")]
    main([*argv, "--no-figures"])
    said = capsys.readouterr().out
    assert "2 records" in said and "note: b.jsonl, line 2, the last, is cut off: it is left out." in said
    assert "is cut off" in (tmp_path / "out/leaderboard.md").read_text()
    with pytest.raises(SystemExit):
        main(argv)
    assert "already holds leaderboard.md: --overwrite" in capsys.readouterr().err
    main([*argv, "--no_figures", "--overwrite"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["gone.json", "-o", "out"], "RECORDS='gone.json' is no file and no folder"),
        (["{dir}"], "required: -o/--output_dir"),
        (["{dir}", "-o", "out"], "holds no results.json"),
        (["{dir}/broken.json", "-o", "out"], "broken.json is not JSON"),
        (["{dir}/broken.json", "-o", "{dir}/broken.json"], "is or lies below a file"),
        (["{dir}/broken.json", "-o", "out", "--tree", "cifar1000"], "did you mean"),
    ],
)
def test_wrong_words_write_nothing(words, says, tmp_path, monkeypatch, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/broken.json").write_text("{")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["report", *(word.replace("{dir}", str(tmp_path / "in")) for word in words)])
    assert says in capsys.readouterr().err and not (tmp_path / "out").exists()
