"""Names and options of a run that can be judged without loading anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hf_hierrobust.options import named_sources
from hf_hierrobust.runs.arguments import RunArguments
from hf_hierrobust.runs.attack_image import attack_image
from hf_hierrobust.runs.evaluate import evaluate

ROOT = Path(__file__).resolve().parents[2]


def names(**options) -> tuple[str, str]:
    args = RunArguments(model_name_or_path="some/clip", **options)
    return args.train_name, args.eval_name


def test_kind30_two_files_of_one_folder_have_two_names(tmp_path):
    """Both were called after their folder, and looked alike in records and cards."""
    pets, wild = tmp_path / "pets.parquet", tmp_path / "wild.parquet"
    assert names(train_file=str(pets), eval_file=str(wild)) == ("pets", "wild")
    train, test = tmp_path / "train.parquet", tmp_path / "test.parquet"
    assert names(train_file=str(train), eval_file=str(test)) == (
        f"{tmp_path.name}-train",
        f"{tmp_path.name}-test",
    )


def test_kind30_the_name_can_be_given(tmp_path):
    files = {"train_file": str(tmp_path / "a.parquet"), "eval_file": str(tmp_path / "b.parquet")}
    assert names(**files, eval_name="night shots")[1] == "night shots"
    with pytest.raises(ValueError, match="eval_name='' is empty"):
        names(**files, eval_name="")


@pytest.mark.parametrize("sources", [{"a": "x.parquet", "b": "y.parquet"}, ["a=x.parquet", "b=y.parquet"]])
def test_kind15_zero_shot_sets_come_as_a_mapping_or_a_list(sources):
    args = RunArguments(dataset_name="glyphs", zero_shot=sources)
    assert args.zero_shot == "a=x.parquet,b=y.parquet"


def test_blanks_around_zero_shot_sets_are_no_part_of_their_names():
    args = RunArguments(dataset_name="glyphs", zero_shot="a=x.parquet, b = y.parquet,")
    found = {"a": "x.parquet", "b": "y.parquet"}
    assert named_sources(args.zero_shot, "zero_shot") == found == named_sources(found, "zero_shot")


def test_arguments_of_a_run_need_no_torch():
    code = (
        "import sys; from hf_hierrobust.runs.arguments import RunArguments as R; R(dataset_name='glyphs');"
        "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize("options", [{"drift_samples": 0.5}, {"skip_train_samples": 1.5}])
def test_counts_are_whole_also_where_nothing_is_one(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"{name}=.* must be an integer, at least 0"):
        RunArguments(model_name_or_path="some/clip", dataset_name="some/data", **options)


@pytest.mark.parametrize("name", ["seed", "batch_size"])
def test_an_evaluation_needs_a_seed_and_a_batch_size(name):
    with pytest.raises(ValueError, match=f"{name}=None must be"):
        evaluate("no/model", "no/data", **{name: None})
    with pytest.raises(ValueError, match=r"seed=0\.5 must be a whole number"):
        attack_image("no/model", "no.png", seed=0.5)
