"""What `load_run` makes of good input."""

from __future__ import annotations

import json

import datasets
import pytest
import torch
from tiny_data import PATHS, make_images
from tiny_files import IMAGE, INTEGERS, load, write

from hf_hierrobust.cli.train import main
from hf_hierrobust.runs.evaluate import evaluate_run
from hf_hierrobust.runs.train import build_trainer


def test_the_base_is_measured_without_the_new_prompt(command, monkeypatch):
    """A visual prompt starts as noise that the undefended base does not have."""
    seen = []

    def measure(run, model, model_name, objective, **options):
        seen.append(model.visual_prompt is not None and model.visual_prompt.enabled)
        return evaluate_run(run, model, model_name, objective, **options)

    monkeypatch.setattr("hf_hierrobust.runs.train.evaluate_run", measure)
    main(command.argv(objective="tecoa", visual_prompt_tokens=2, figures="false", eval_classifiers="cosine"))
    assert seen == [False, True]


def test_each_set_may_keep_its_own_templates(command, tmp_path):
    classes = {"class_names": list(PATHS), "templates": ["a drawing of a {}.", "my {}."]}
    (tmp_path / "classes.json").write_text(json.dumps(classes))
    run = load(command, class_set=tmp_path / "classes.json", eval_template="own")
    assert run.args.prompt_template("a {}") is None
    assert load(command).args.prompt_template("a {}") == "a {}"
    assert load(command, eval_template="the {}").args.prompt_template("a {}") == "the {}"


def test_the_run_fits_together(command):
    run = load(command)
    assert run.class_set.class_names == tuple(PATHS) and run.forest.trees[0].sizes == (4, 2)
    assert len(run.train_dataset) == 32 and run.train_dataset.items.pixels.dtype == torch.uint8
    (main_set,) = run.eval_sets
    assert main_set.num_samples == 1000 and main_set.tree is run.forest.trees[0]
    assert build_trainer(run).objective.name == "hier_robust"
    assert not any(command.options["output_dir"].iterdir())


def test_an_evaluation_that_draws_nothing_needs_no_matplotlib(command, monkeypatch):
    monkeypatch.setattr("hf_hierrobust.runs.checks.find_spec", lambda name: None)
    assert load(command, training=False, eval_classifiers="cosine").train_dataset is None
    with pytest.raises(ImportError, match="--figures false"):
        load(command, training=False, transfer="true")


def test_parts_of_the_training_set(command):
    run = load(command, max_train_samples=10, skip_train_samples=4)
    assert len(run.train_dataset) == 10 and min(run.train_dataset.items.rows) >= 4


def test_large_sets_are_not_decoded_into_memory(command, monkeypatch):
    monkeypatch.setattr("hf_hierrobust.runs.checks.PRELOAD_BYTES", 32 * 3 * 32 * 32 - 1)
    assert load(command).train_dataset.items.pixels is None


def test_a_text_labelled_file_without_one_class_keeps_its_meaning(command, tmp_path):
    """Its own ids are 0 dog, 1 rose; the training file's are 0 cat, 1 dog, 2 oak, 3 rose."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    train = write(tmp_path, "train", {"image": [IMAGE] * 4, "label": ["rose", "oak", "dog", "cat"]}, features)
    some = write(tmp_path, "some", {"image": [IMAGE] * 3, "label": ["rose", "dog", "rose"]}, features)
    run = load(command, train_file=train, eval_file=some)
    data = run.eval_sets[0]
    labels = next(iter(data.loader(run.processor, "native", 8)))["labels"]
    assert [run.class_set.class_names[y] for y in labels] == ["rose", "dog", "rose"]
    batch = build_trainer(run).data_collator([run.eval_sets[0].dataset[i] for i in range(3)])
    assert batch["labels"].tolist() == labels.tolist()
    other = write(tmp_path, "other", {"image": [IMAGE], "label": ["bird"]}, features)
    with pytest.raises(ValueError, match="'bird' is unknown"):
        load(command, train_file=train, eval_file=other)


def test_a_stream_checks_labels_as_it_goes(command, tmp_path):
    rows = {"image": [IMAGE] * 3, "label": [0, 1, 7]}
    path = write(tmp_path, "stream", rows, INTEGERS)
    good = write(tmp_path, "good", {"image": [IMAGE], "label": [0]}, INTEGERS)
    classes = tmp_path / "classes.json"
    classes.write_text(json.dumps({"class_names": list(PATHS)}))
    options = {"train_file": path, "eval_file": good, "class_set": classes, "streaming": "true"}
    run = load(command, **options, threat_space="native")
    with pytest.raises(ValueError, match=r"row 2 of .*stream\.parquet has label 7"):
        list(run.train_dataset)


def test_training_images_without_labels(command, tmp_path):
    bare = write(tmp_path, "bare", {"image": [IMAGE] * 6}, datasets.Features({"image": datasets.Image()}))
    options = {"train_file": bare, "objective": "fare", "unlabelled": "true", "tree": None}
    run = load(command, **options, max_train_samples=4)
    assert len(run.train_dataset) == 4 and not run.train_dataset.labelled
    assert run.class_set.class_names == tuple(PATHS) and run.eval_sets[0].dataset.labelled
    build_trainer(run)
    with pytest.raises(ValueError, match="'tecoa' needs class labels"):
        build_trainer(load(command, **options | {"objective": "tecoa"}))
    with pytest.raises(ValueError, match="no column that is clearly the label"):
        load(command, **options | {"unlabelled": "false"})


def test_a_class_set_in_another_order_than_the_labels(command, tmp_path):
    classes = tmp_path / "classes.json"
    classes.write_text(json.dumps({"class_names": ["rose", "oak", "dog", "cat"]}))
    run = load(command, class_set=classes)
    assert run.train_dataset.numbering == "own" and run.forest.leaves == ("rose", "oak", "dog", "cat")
    batch = build_trainer(run).data_collator([run.train_dataset[0]])
    assert batch["labels"].tolist() == [3]
    assert make_images(1)[0]["label"] == 0


def test_kind10_a_caption_column_that_nothing_reads_is_refused(command):
    with pytest.raises(
        ValueError, match="caption_column='text' has no effect: 'tecoa' trains on no captions"
    ):
        load(command, objective="tecoa", caption_column="text")
