"""Mistakes on the command line stop the run early, say what to do, and leave the output directory alone."""

from __future__ import annotations

import json
import re

import datasets
import pytest
from PIL import Image
from tiny_data import PATHS, make_images
from tiny_files import IMAGE, INTEGERS, write
from tiny_runs import make_trainer

from hf_hierrobust.cli.evaluate import main as evaluate
from hf_hierrobust.cli.train import main
from hf_hierrobust.data import PixelDataset

TRAINING = ("train_file", "max_steps", "per_device_train_batch_size", "learning_rate", "logging_steps")


@pytest.fixture()
def refused(command, capsys):
    """Run the real entry point with changed options: one sentence, status 2, and nothing was written."""

    def run(words, **changes):
        output = command.options["output_dir"]
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(command.argv(**changes))
        assert caught.value.code == 2
        said = capsys.readouterr().err.strip().splitlines()
        assert said[-1].startswith("hf-hierrobust train: error: ") and re.search(words, said[-1]), said
        assert not [line for line in said if line.startswith(("Traceback", "  File"))]
        assert not output.exists(), f"{list(output.rglob('*'))} was written"

    return run


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"eps": "4"}, "eps='4'.*did you mean 4/255"),
        ({"eps": "0"}, "eps='0' must be positive"),
        ({"eval_eps": "1/255,8"}, "eval_eps='8'.*did you mean 8/255"),
        ({"eval_step_size": "1"}, "eval_step_size='1'.*did you mean 1/255"),
        ({"eval_attack": "pgd,dlr"}, "attack='dlr' is unknown.*pgd-margin"),
        ({"eval_attack_args": '{"steps": 3}'}, "attack 'pgd' has no option steps; it has .*num_steps"),
        ({"eval_attack_args": '{"num_steps": 3}', "eval_num_steps": 2}, "both set num_steps: give it once"),
        ({"eval_num_steps": "0"}, "eval_num_steps=0 must be an integer, at least 1"),
        ({"max_train_samples": "0"}, "max_train_samples=0 must be an integer, at least 1"),
        ({"skip_train_samples": "-1"}, "skip_train_samples=-1 must be an integer, at least 0"),
        ({"skip_train_samples": "32"}, "skip_train_samples=32 leaves none of 32 training images"),
        ({"robust_eval_samples": "7"}, "robust_eval_samples=7 has no effect without eval_strategy"),
        ({"robust_eval_samples": "0"}, "robust_eval_samples=0 must be an integer, at least 1"),
        ({"attack_args": '{"random_start": "normal"}'}, "random_start='normal' is unknown"),
        ({"attack": "pgd", "attack_args": '{"num_steps": "3"}'}, "num_steps='3' must be an integer"),
        ({"model_name_or_path": None}, "no model: give model_name_or_path"),
        ({"dataset_name": "glyphs"}, "dataset_name='glyphs' has no effect beside train_file and eval_file"),
        ({"eval_classifiers": "cosine,rolup"}, "eval_classifiers='rolup' is unknown: did you mean 'rollup'"),
        ({"eval_classifiers": "rollup", "tree": None, "objective": "tecoa"}, "needs a class tree"),
        ({"eval_samples": "0"}, "eval_samples=0"),
        ({"objective_args": '{"hsna": "upper"}'}, "'hsna'.*takes hnsa"),
        ({"hub_token": "hf_x"}, "HF_TOKEN"),
        ({"tree": None}, "needs a class tree"),
        ({"tree": "cifar1000"}, "tree='cifar1000' is not built in.*did you mean 'cifar100'"),
        ({"class_set": "cifar1000"}, "class_set='cifar1000' is not built in"),
        ({"zero_shot": "cifar10"}, "zero_shot='cifar10' must be name=source"),
        ({"zero_shot": "cifar10=a/, cifar10=b/"}, "zero_shot names 'cifar10' twice"),
        ({"zero_shot": ","}, "zero_shot=',' names no data set"),
        (
            {"zero_shot": "pets=a/,birds=b/", "eval_name": "birds"},
            "zero_shot='birds=b/' is called like the evaluation set.*give eval_name, now 'birds', another",
        ),
        ({"eval_file": None}, "no data: give dataset_name .* train_file beside eval_file or holdout"),
        ({"train_file": None}, "no training data: give train_file beside eval_file="),
        ({"train_file": None, "eval_file": None}, "no data: give dataset_name"),
        ({"image_column": "photo"}, "image_column='photo' is not a column.*'image', 'label'"),
        ({"label_column": "class"}, "label_column='class' is not a column"),
        ({"template": "a photo"}, r"template='a photo' must contain '\{\}' exactly once"),
        (
            {"eval_template": "a photo"},
            r"eval_template='a photo' must contain '\{\}' exactly once",
        ),
        ({"template": "very " * 40 + "{}"}, r"prompt 'very .* tokens but the text encoder's context is"),
        ({"eval_template": "very " * 40 + "{}"}, r"prompt 'very .* tokens but the text encoder's context is"),
        ({"text_attack": "synonym"}, "text_attack: 'hier_robust' trains on no attacked captions"),
        ({"eval_text_attack": "gradient", "eval_classifiers": "rollup"}, "leaves out: add it"),
        ({"eval_text_attack_args": '{"num_words": 2}'}, "but no eval_text_attack that takes them"),
        ({"attack_args": '{"eps": "4/255"}'}, "attack_args: eps is set by the arguments norm, eps"),
        ({"objective_args": '{"level_weights": [0, 0]}'}, r"level_weights=\[0, 0\] must be a list"),
        ({"objective_args": '{"level_weights": 1}'}, "level_weights=1 must be a list"),
        (
            {"objective_args": '{"gap_margin": 0.3}'},
            "gap_margin=0.3 .* does not fit 2 levels within the leaves'",
        ),
        ({"lora_r": "2", "lora_alpha": "0"}, "lora_alpha=0.0 must be positive"),
        ({"tree": "induced"}, "tree='induced' needs at least 8 classes to group, got 4"),
        ({"resume_from_checkpoint": "nowhere"}, "nowhere.*not a whole checkpoint"),
    ],
    ids=lambda v: "-".join(v) if isinstance(v, dict) else "",
)
def test_wrong_options(changes, words, refused):
    refused(words, objective=changes.pop("objective", "hier_robust"), **changes)


def test_eval_options_are_checked_even_if_the_base_is_not_evaluated(refused):
    """They would otherwise be read for the first time after the training."""
    refused("eval_eps='8'", eval_eps="8", eval_base="false")


@pytest.mark.parametrize("prefix", ["", "eval_"])
def test_a_missing_or_wrong_masked_language_model_is_noticed_before_training(
    prefix, refused, tiny_clip_dir, tmp_path
):
    for folder in (tmp_path / "nowhere", tiny_clip_dir):  # the second holds a model of another kind
        options = {f"{prefix}text_attack_args": json.dumps({"model_name": str(folder)})}
        if prefix:
            options |= {"eval_text_attack": "bert", "eval_base": "false"}
        words = "masked language model model_name=.* cannot be loaded"
        refused(words, objective="mmcoa" if not prefix else "hier_robust", **options)


def test_missing_matplotlib_is_noticed_before_training(refused, monkeypatch):
    monkeypatch.setattr("hf_hierrobust.runs.checks.find_spec", lambda name: None)
    refused(r"hf_hierrobust\[plots\].*--figures false")


def test_unknown_names_of_objectives(refused):
    refused("objective='hier_robus' is unknown: did you mean 'hier_robust'", objective="hier_robus")


def test_classes_the_tree_lacks(refused, tmp_path):
    paths = {("cats" if c == "cat" else c): path for c, path in PATHS.items()}
    tree = tmp_path / "short.json"
    tree.write_text(json.dumps(paths))
    refused(r"tree 'short' lacks 1 of the classes: 'cat' \(nearest: 'cats'", tree=tree)


def test_a_broken_tree_file(refused, tmp_path):
    tree = tmp_path / "broken.json"
    tree.write_text('{"cat": ["animal"')
    refused(r"broken\.json is not JSON", tree=tree)


def test_an_empty_file(refused, tmp_path):
    path = write(tmp_path, "empty", {"image": [], "label": []}, INTEGERS)
    refused("has no rows", train_file=path)
    refused("has no rows", eval_file=path)


def test_a_file_that_is_not_there(refused, tmp_path):
    refused("absent.parquet", train_file=tmp_path / "absent.parquet")


def test_no_image_column(refused, tmp_path):
    path = write(tmp_path, "texts", {"note": [1, 2], "label": [0, 1]})
    refused(r"no column that is clearly the image.*note \(int64\).*image_column", train_file=path)


def test_no_label_column(refused, tmp_path):
    features = datasets.Features({"image": datasets.Image(), "height": datasets.Value("float32")})
    path = write(tmp_path, "unlabelled", {"image": [IMAGE], "height": [1.0]}, features)
    refused("no column that is clearly the label.*label_column", train_file=path)


def test_labels_without_names_need_a_class_set(refused, tmp_path):
    paths = [
        write(tmp_path, name, {"image": [IMAGE], "label": [0]}, INTEGERS) for name in ("numbers", "more")
    ]
    words = r"labels of .*numbers\.parquet have no names: give class_set"
    refused(words, train_file=paths[0], eval_file=paths[1])


@pytest.mark.parametrize("label", [4, -1])
def test_labels_outside_the_class_set(label, refused, tmp_path):
    good = write(tmp_path, "good", {"image": [IMAGE] * 2, "label": [0, 3]}, INTEGERS)
    bad = write(tmp_path, "bad", {"image": [IMAGE] * 3, "label": [0, 1, label]}, INTEGERS)
    classes = tmp_path / "classes.json"
    classes.write_text(json.dumps({"class_names": list(PATHS)}))
    words = rf"row 2 of .*bad\.parquet has label {label}, outside the allowed range 0\.\.3"
    refused(words, class_set=classes, train_file=bad, eval_file=good)
    refused(words, class_set=classes, train_file=good, eval_file=bad)


def test_zero_shot_sets_are_checked_before_anything_runs(refused, tmp_path):
    bad = write(tmp_path, "far", {"image": [IMAGE] * 2, "label": [3, 10]}, INTEGERS)
    words = r"row 1 of .*far\.parquet has label 10, outside the allowed range 0\.\.9"
    refused(words, zero_shot=f"cifar10={bad}")
    refused("zero_shot='birds=.*' does not name its classes", zero_shot=f"birds={bad}")


def test_labels_that_fit_no_class(refused, tmp_path):
    classes = tmp_path / "classes.json"
    classes.write_text(json.dumps({"class_names": ["cat", "dog", "oak", "roses"]}))
    words = "'rose' is unknown, nearest: 'roses'"
    refused(words, class_set=classes, tree=None, objective="tecoa")


def test_a_damaged_image_names_its_row(refused, tmp_path):
    rows = {"image": [IMAGE, {"bytes": b"not an image", "path": None}], "label": [0, 1]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(PATHS))})
    path = write(tmp_path, "damaged", rows, features)
    refused("row 1 of .* is not a readable image", train_file=path)


def test_images_of_two_sizes_at_native_resolution(refused, tmp_path):
    rows = {"image": [IMAGE, Image.new("RGB", (20, 32))], "label": [0, 1]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(PATHS))})
    path = write(tmp_path, "mixed", rows, features)
    refused("row 0 .* 32x32 and row 1 .* 20x32", train_file=path, threat_space="native")


def test_a_model_that_is_no_dual_encoder(refused, tmp_path):
    from transformers import BertConfig, BertModel

    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    BertModel(config).save_pretrained(tmp_path / "bert")
    refused("'bert' checkpoint, not a dual encoder", model_name_or_path=tmp_path / "bert")


def test_a_model_folder_that_is_not_there(refused, tmp_path):
    words = "model_name_or_path=.*nowhere' holds no checkpoint"
    refused(words, model_name_or_path=tmp_path / "nowhere")


# ---- output directories ----


def test_an_output_directory_that_holds_another_run(command, capsys):
    output = command.options["output_dir"]
    (output / "checkpoint-3").mkdir(parents=True)
    (output / "model.safetensors").write_text("weights of hours")
    with pytest.raises(SystemExit):
        main(command.argv(objective="hier_robust"))
    assert "already holds a run" in capsys.readouterr().err
    # asked to overwrite, a run that cannot start deletes nothing
    with pytest.raises(SystemExit):
        main(command.argv(objective="hier_robust", overwrite_output_dir="true", tree="absent"))
    assert "tree='absent' is not built in" in capsys.readouterr().err
    assert (output / "checkpoint-3").is_dir()
    assert (output / "model.safetensors").read_text() == "weights of hours"


def test_results_are_not_replaced_unasked(command, capsys):
    output = command.options["output_dir"]
    output.mkdir()
    (output / "results.json").write_text("with a base")
    with pytest.raises(SystemExit):
        evaluate(command.argv(**dict.fromkeys(TRAINING)))
    assert "already holds results.json: --overwrite_output_dir true" in capsys.readouterr().err
    assert (output / "results.json").read_text() == "with a base"


@pytest.mark.parametrize("label", [4, -1])
def test_the_trainer_refuses_labels_that_are_no_class(label, tiny_clip_dir, tmp_path):
    """From Python nobody has looked at them before: -1 would train the last class."""
    images = make_images(8).remove_columns("label").cast_column("image", datasets.Image())
    bad = PixelDataset(images.add_column("label", [0, 1, label, *[3] * 5]))
    with pytest.raises(ValueError, match=rf"label {label}, outside the allowed range 0\.\.3"):
        make_trainer(tiny_clip_dir, tmp_path, train=bad)
