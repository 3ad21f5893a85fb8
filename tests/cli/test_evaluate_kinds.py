"""``evaluate`` from the command line with everything that it can measure besides."""

from __future__ import annotations

import re

import pytest
from figure_checks import check_png

from hf_hierrobust.cli.main import main as console
from hf_hierrobust.evaluation import load_records

KINDS = {
    "transfer": "true",
    "targets": "within,outside",
    "defence": "ttc",
    "defence_args": '{"threshold": 0.5}',
    "eot": 1,
    "eval_text_attack": "embedding",
    "eval_text_attack_args": '{"num_steps": 2}',
    "eval_text_orders": "independent,joint",
    "checks": "true",
}


@pytest.fixture()
def flags(tiny_clip_dir, data_dir, tmp_path):
    return {
        "model_name_or_path": tiny_clip_dir,
        "eval_file": data_dir / "test.parquet",
        "tree": data_dir / "tiny.json",
        "eps": "8/255",
        "eval_num_steps": 2,
        "eval_samples": 4,
        "eval_classifiers": "cosine",
        "output_dir": tmp_path / "measured",
    }


def run(flags):
    console(["evaluate", *(word for key, value in flags.items() for word in (f"--{key}", str(value)))])


def test_every_kind_is_measured_printed_and_drawn(flags, capsys):
    run(flags | KINDS)
    output, said = flags["output_dir"], capsys.readouterr().out
    records = load_records(output / "results.json")
    assert len(records) == 2 + 2 + 2 + 3 + 4
    (defended, *_) = [r.defence for r in records if r.defence]
    assert defended["threshold"] == 0.5 and defended["eot"] == 1
    (joint,) = [r for r in records if r.attack.get("text_order") == "joint"]
    assert joint.attack["text_attack"]["num_steps"] == 2
    for words in ("cosine + ttc", "crafted at superclass", "order independent", "radient masking"):
        assert words in said
    check_png(next((output / "figures").glob("transfer-*-1.png")))
    assert next((output / "figures").glob("transfer-*-1.svg")).stat().st_size


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"targets": "inside"}, "targets: 'inside' is unknown"),
        ({"defence": "tcc"}, "defence='tcc' is unknown"),
        ({"defence_args": '{"eps": 4}', "defence": "ttc"}, "did you mean 4/255"),
        ({"defence_args": '{"epsilon": 4}', "defence": "ttc"}, "defence_args: .*takes eps, step_size"),
        ({"eval_text_orders": "joint"}, "no effect without a text_attack"),
        ({"transfer": "true", "tree": None}, "transfer=True has no effect without a class tree"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(flags, capsys, changes, words):
    merged = {key: value for key, value in (flags | changes).items() if value is not None}
    with pytest.raises(SystemExit):
        run(merged)
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.search(words, said), said
