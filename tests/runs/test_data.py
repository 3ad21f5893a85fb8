"""What a run makes of its sources: held-out parts, shared images, sizes, splits and names."""

from __future__ import annotations

import datasets
import pytest
from PIL import Image
from tiny_data import CLASSES, make_images
from tiny_files import IMAGE, load, write

NAMED = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))})


@pytest.fixture
def sorted_file(tmp_path):
    """80 images sorted by class, as folders are."""
    path = tmp_path / "pets.parquet"
    make_images(80, seed=9).sort("label").to_parquet(str(path))
    return path


def test_kind28_evaluation_and_training_images_are_stratified(command, sorted_file):
    """The first rows of a sorted folder are one or two classes."""
    run = load(command, eval_file=sorted_file, eval_samples=20, max_train_samples=8)
    data = run.eval_sets[0]
    assert [list(data.images.labels[data.rows]).count(c) for c in range(4)] == [5] * 4
    assert data.how == "stratified by class, seed 0"
    assert [list(run.train_dataset.labels).count(c) for c in range(4)] == [2] * 4


def test_kind29_holdout_evaluates_on_images_that_are_not_trained_on(command, sorted_file):
    options = {"train_file": sorted_file, "eval_file": None, "holdout": 0.25}
    run = load(command, **options)
    held, train = run.eval_sets[0], run.train_dataset
    assert (len(train), len(held.images), held.split) == (60, 20, "train, held out")
    assert sorted([*train.items.rows, *held.images.items.rows]) == list(range(80))
    assert held.shared_with_training == 0 and held.name == "pets"
    again = load(command, **options)
    assert list(again.eval_sets[0].images.items.rows) == list(held.images.items.rows)


def test_kind29_shared_images_are_counted_and_warned_about(command, sorted_file, tmp_path, caplog):
    other = tmp_path / "other.parquet"
    rows = datasets.concatenate_datasets([make_images(80, seed=9).select(range(3)), make_images(5, seed=77)])
    rows.to_parquet(str(other))
    run = load(command, train_file=sorted_file, eval_file=other)
    assert run.eval_sets[0].shared_with_training == 3
    assert "3 of 8 evaluation images are also training images" in caplog.text


def test_kind29_the_same_file_twice_is_refused(command, sorted_file):
    with pytest.raises(
        ValueError, match=r"pets\.parquet' is given for training and for evaluation.*holdout=0\.2"
    ):
        load(command, train_file=sorted_file, eval_file=sorted_file)


def test_kind30_two_files_of_one_folder_have_different_names(command, sorted_file, tmp_path):
    other = write(tmp_path, "birds", {"image": [IMAGE], "label": [0]}, NAMED)
    run = load(command, train_file=sorted_file, eval_file=other)
    assert (run.args.train_name, run.args.eval_name, run.class_set.name) == ("pets", "birds", "pets")


def test_kind31_images_of_different_sizes_are_attacked_at_the_models_size(command, tmp_path, caplog):
    rows = {"image": [IMAGE, Image.new("RGB", (20, 32)), IMAGE, IMAGE], "label": [0, 1, 2, 3]}
    mixed = write(tmp_path, "mixed", rows, NAMED)
    run = load(command, eval_file=mixed)
    assert run.training_args.threat.space == run.training_args.threat_space == "model"
    assert "threat_space='model' was chosen, since images differ in size: image 0 of" in caplog.text
    assert next(iter(run.eval_sets[0].loader(run.processor, "model", 4)))["pixels"].shape == (4, 3, 32, 32)
    assert load(command).training_args.threat_space == "native"


def test_kind31_a_folder_and_a_file_go_together(command, tmp_path):
    """A folder of class folders beside a parquet file, whose classes have another order."""
    for name in ("Rose", "cat"):
        (tmp_path / "flowers" / name).mkdir(parents=True)
        make_images(4)[3 if name == "Rose" else 0]["image"].save(tmp_path / "flowers" / name / "a.png")
    run = load(command, eval_file=tmp_path / "flowers")
    data = run.eval_sets[0]
    assert [CLASSES[label] for label in data.images.labels] == ["rose", "cat"]
    assert (data.name, data.split) == ("flowers", "train")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"holdout": 0.2}, "holdout=0.2 and eval_file="),
        ({"holdout": 0.2, "eval_file": None, "streaming": "true"}, "holdout=0.2 and streaming=True"),
        ({"holdout": -1, "eval_file": None}, "holdout=-1.0 must be a fraction"),
        ({"holdout": 0.001, "eval_file": None}, r"holdout=0\.001 must be a fraction .* of 32 in all"),
        ({"dataset_name": "x"}, "dataset_name='x' has no effect beside train_file and eval_file"),
        ({"dataset_name": "glyphs", "eval_file": None}, "train_file=.*dataset_name='glyphs' renders its own"),
    ],
)
def test_sources_that_do_not_go_together(command, changes, words):
    with pytest.raises(ValueError, match=words):
        load(command, **changes)
