"""Two models on local copies: the same images for both, killed and gone on with, further attacks join."""

from __future__ import annotations

import json
import shutil

import pytest
from suite_child import shared_by_two
from tiny_data import CLASSES, make_images, make_tiny_clip

from hf_hierrobust.attacks import PGD, cross_entropy
from hf_hierrobust.cli.main import main
from hf_hierrobust.evaluation import load_records, records_hash
from hf_hierrobust.runs import suite
from hf_hierrobust.runs.suite import SuiteError, SuiteRequest, evaluate_suite

QUICK = {"attack": "pgd-ce", "eps": "4/255", "samples": 8, "attack_options": {"num_steps": 1}}


@pytest.fixture(scope="module")
def models(tiny_clip_dir, tmp_path_factory) -> list[str]:
    return [tiny_clip_dir, make_tiny_clip(tmp_path_factory.mktemp("other-clip"), seed=1)]


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict:
    """Two sets of one's own, described as the suite's are."""
    folder, found = tmp_path_factory.mktemp("sets"), {}
    for name, seed in (("one", 1), ("two", 2)):
        described = {
            "name": name,
            "title": name,
            "hub_id": f"nobody/{name}",
            "hub_id_known": "nowhere",
            "split": "test",
            "num_classes": 4,
            "num_images": 20,
            "metric": "top-1 accuracy",
            "templates": ["this is a photo of a {}"],
            "names_from": "here",
            "class_names": list(CLASSES),
        }
        (folder / f"{name}.json").write_text(json.dumps(described))
        make_images(20, seed=seed).to_parquet(str(folder / f"{name}.parquet"))
        found[str(folder / f"{name}.json")] = folder / f"{name}.parquet"
    return found


def records_in(folder):
    return [r for file in sorted((folder / "records").glob("*.jsonl")) for r in load_records(file)]


def found(records):
    return sorted((r.model_hash, r.dataset, r.attack["eps"], r.clean_accuracy, str(r.flags)) for r in records)


def test_all_models_see_the_same_images_and_a_killed_run_goes_on(models, sets, tmp_path, monkeypatch):
    whole = evaluate_suite(
        models, tmp_path / "whole", sets, SuiteRequest(**QUICK), progress=False, figures=False
    )
    records = records_in(tmp_path / "whole")
    assert len(records) == 4 and len({r.sample_ids["sha256"] for r in records}) == 2
    assert all(r.num_samples == 8 and r.classes["names"] == list(CLASSES) for r in records)
    (table,) = whole.board.tables
    assert table.sets == ["one", "two"] and len(table.cells) == 2
    samples = json.loads((tmp_path / "whole/samples.json").read_text())["sets"]
    assert samples["one"]["how"] == "stratified by class, seed 0" and len(samples["one"]["rows"]) == 8

    measured, real = [], suite.evaluate_model

    def killed(model, processor, data, plan, **options):
        assert options["state_dir"].parent.name == "state"
        measured.append((options["model_name"], data[0].name))
        if len(measured) == 3:
            raise KeyboardInterrupt
        return real(model, processor, data, plan, **options)

    monkeypatch.setattr(suite, "evaluate_model", killed)
    out, more = tmp_path / "killed", {"progress": False, "figures": False}
    with pytest.raises(KeyboardInterrupt):
        evaluate_suite(models, out, sets, SuiteRequest(**QUICK), **more)
    assert len(records_in(out)) == 2
    evaluate_suite(models, out, sets, SuiteRequest(**QUICK), **more)
    assert measured[2:] == [(models[1], "one"), (models[1], "one"), (models[1], "two")]
    assert found(records_in(out)) == found(records) and not list((out / "state").iterdir())

    evaluate_suite(models[:1], out, sets, SuiteRequest(**QUICK | {"eps": "1/255,4/255"}), **more)
    assert len(records_in(out)) == 6 and len(measured) == 7  # another budget is another measurement


def test_other_data_than_the_samples_were_chosen_from_are_refused(models, sets, tmp_path):
    (first, source), *_ = sets.items()
    request, more = SuiteRequest(**QUICK), {"progress": False, "figures": False}
    evaluate_suite(models[:1], tmp_path / "out", {first: source}, request, **more)
    for images, says in (
        (make_images(16), "rows of 20 images of one .* there are 16 now"),
        (make_images(20).select(range(19, -1, -1)), "labels of one stand in another order"),
    ):
        other = tmp_path / "other.parquet"
        images.to_parquet(str(other))
        with pytest.raises(SuiteError, match=says):
            evaluate_suite(models[:1], tmp_path / "out", {first: other}, request, **more)
    with pytest.raises(SuiteError, match="holds 8 images of one, asked for are 12"):
        evaluate_suite(
            models[:1], tmp_path / "out", {first: source}, SuiteRequest(**QUICK | {"samples": 12}), **more
        )


def edit(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def other_mean(folder):
    edit(
        folder / "processor_config.json",
        lambda found: found["image_processor"].update(image_mean=[3.0, -2.0, 0.1], image_std=[0.1, 0.1, 0.5]),
    )


def other_activation(folder):
    edit(folder / "config.json", lambda found: found["vision_config"].update(hidden_act="relu"))


def other_head(folder):
    edit(folder / "config.json", lambda found: found.update(hier_robust={"objective": "tecoa"}))


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (other_mean, {}),
        (other_mean, {"space": "model"}),
        (other_activation, {}),
        (other_head, {}),
        (None, {"bf16_search": True}),
        (None, {"attack": PGD(loss=lambda z, y: -cross_entropy(z, y), num_steps=1)}),
    ],
    ids=["preprocessing", "preprocessing at model size", "configuration", "objective", "precision", "loss"],
)
def test_whatever_else_decides_a_record_is_measured_again(
    change, options, models, sets, tmp_path, monkeypatch
):
    (first, source), *_ = sets.items()
    model = shutil.copytree(models[0], tmp_path / "model")
    loss = PGD(loss=lambda z, y: cross_entropy(z, y), num_steps=1)
    before = QUICK | {"bf16_search": False} | {key: options[key] for key in ("space",) if key in options}
    if "attack" in options:
        before = before | {"attack": loss, "attack_options": None}
    measured, real = [], suite.evaluate_model
    monkeypatch.setattr(
        suite, "evaluate_model", lambda *args, **more: measured.append(1) or real(*args, **more)
    )

    def measure(request, out=tmp_path / "out"):
        evaluate_suite([model], out, {first: source}, SuiteRequest(**request), progress=False, figures=False)
        return records_in(out)

    old = measure(before)
    assert found(measure(before)) == found(old) and len(measured) == 1
    if change is not None:
        change(model)
    new = measure(before | options)
    assert len(measured) == 2 and len(old) == 1
    assert records_hash(new[-1:]) == records_hash(measure(before | options, tmp_path / "fresh"))
    assert len(new) == 1 + (change is None)


def test_other_images_with_the_same_labels_are_refused(models, sets, tmp_path):
    (first, source), *_ = sets.items()
    request, more = SuiteRequest(**QUICK), {"progress": False, "figures": False}
    evaluate_suite(models[:1], tmp_path / "out", {first: source}, request, **more)
    make_images(20, seed=77).to_parquet(str(tmp_path / "other.parquet"))
    with pytest.raises(SuiteError, match="the images of one are others than when"):
        evaluate_suite(models[:1], tmp_path / "out", {first: tmp_path / "other.parquet"}, request, **more)
    edit(tmp_path / "out/samples.json", lambda found: found.update(version=1))
    with pytest.raises(SuiteError, match="has version 1, this release writes 2"):
        evaluate_suite(models[:1], tmp_path / "out", {first: source}, request, **more)


def test_two_processes_measure_what_one_does(models, sets, tmp_path):
    request = QUICK | {"batch_size": 3, "bf16_search": False}
    evaluate_suite(
        models[:1], tmp_path / "alone", sets, SuiteRequest(**request), progress=False, figures=False
    )
    (tmp_path / "two").mkdir()
    shared_by_two(tmp_path / "two", models[:1], sets, request)
    assert records_hash(records_in(tmp_path / "two/out")) == records_hash(records_in(tmp_path / "alone"))


def test_the_command_on_real_photos(shared_dir, tmp_path, capsys):
    argv = [
        "suite",
        str(shared_dir / "models/clip-small"),
        "-o",
        str(tmp_path / "out"),
        "--samples",
        "10",
        "--num-steps",
        "1",
    ]
    data = shared_dir / "data"
    argv += ["--sets", f"cifar10={data}/cifar10/test.parquet,caltech101={data}/caltech101/test.parquet"]
    with pytest.warns(UserWarning, match="same prompt are counted as one"):
        main([*argv, "--attack", "pgd-ce", "--eps", "1/255", "--no-figures", "--levels"])
    records = records_in(tmp_path / "out")
    assert {(r.dataset, r.level_name, r.attack["space"]) for r in records} >= {
        ("cifar10", "leaf", "native"),
        ("cifar10", "superclass", "native"),
    }
    faces = next(r for r in records if r.dataset == "caltech101")
    assert faces.classes["names"].count("person") == 2 and faces.num_classes == 100
    assert "means over" in capsys.readouterr().out.lower()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "give at least one MODEL"),
        (["{model}"], "give at least one MODEL and -o"),
        (["/gone", "-o", "out"], "MODEL='/gone' holds no checkpoint"),
        (["{model}", "{model}", "-o", "out"], "is given twice"),
        (["{model}", "-o", "out", "--sets", "cifar1O"], "sets='cifar1O' is unknown: did you mean 'cifar10'"),
        (["{model}", "-o", "out", "--sets", "dtd=gone.parquet"], "sets='gone.parquet' does not exist"),
        (["{model}", "-o", "out", "--sets", "dtd,dtd"], "'dtd' is given twice"),
        (["{model}", "-o", "out", "--sets", "dtd="], "must be name=source"),
        (["{model}", "-o", "out", "--samples", "0"], "samples='0' must be a number of images"),
        (["{model}", "-o", "out", "--eps", "1/255,4"], "did you mean 4/255"),
        (
            ["{model}", "-o", "out", "--classifiers", "cosine,rollup"],
            "'rollup' joins the levels of a tree: give levels too",
        ),
        (
            ["{model}", "-o", "out", "--sets", "cifar10,dtd", "--levels", "--classifiers", "rollup"],
            "dtd has no tree for rollup: add 'cosine'",
        ),
        (["{model}", "-o", "out", "--attack", "pdg"], "did you mean 'pgd'"),
        (["{model}", "-o", "out", "--attack_args", "{"], "is not JSON"),
    ],
)
def test_wrong_words_write_nothing(words, says, models, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["suite", *(word.replace("{model}", models[0]) for word in words)])
    assert caught.value.code == 2 and says in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_the_list_names_every_set(capsys):
    main(["suite", "--list"])
    assert len(capsys.readouterr().out.splitlines()) == 18
