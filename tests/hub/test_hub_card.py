"""The card's header and body against the facts they were made from."""

from __future__ import annotations

import os
import re
from dataclasses import replace

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from hf_hierrobust.evaluation.records import RobustnessRecord, describe_samples
from hf_hierrobust.hub import CardFacts, TreeFacts, render_card, write_card
from hf_hierrobust.uploads import EVAL_RESULTS

ABSOLUTE = re.compile(r"(?<![\w/:.])(/[\w.-]+){2,}|[A-Za-z]:\\")


def make_record(**changes) -> RobustnessRecord:
    fields = {
        "model": "glyph-clip-robust",
        "objective": "hier_robust",
        "dataset": "org/glyphs",
        "split": "test",
        "class_set": "glyphs",
        "num_classes": 12,
        "level": 0,
        "level_name": "leaf",
        "classifier": "cosine",
        "attack": {
            "name": "apgd-ce", "norm": "linf", "eps": 4 / 255, "space": "native",
            "step_size": 1 / 255, "num_steps": 20, "restarts": 2, "loss": "ce",
        },
        "seed": 3,
        "num_samples": 64,
        "sample_ids": describe_samples(range(64), "first 64"),
        "clean_accuracy": 48 / 64,
        "robust_accuracy": 17 / 64,
        "base": {"clean_accuracy": 56 / 64, "robust_accuracy": 1 / 64},
        "versions": {"torch": "9.8.7"},
    }  # fmt: skip
    return RobustnessRecord(**(fields | changes))


def make_facts(**changes) -> CardFacts:
    fields = {
        "model_name": "glyph-clip-robust",
        "base_model": "openai/clip-vit-base-patch32",
        "objective": "hier_robust",
        "threat_model": "linf:4/255 on native pixels",
        "paper_id": "2404.12345",
        "paper_title": "A paper",
        "citation": "@article{a, title = {A {\\'e}/b paper}, url = {https://arxiv.org/abs/2404.12345}}",
        "datasets": ("org/glyphs",),
        "hyperparameters": {"learning_rate": 1e-5, "eps": "4/255", "levels": (0, 1)},
        "trained_parameters": {"vision_model": 87456000, "hier_head": 2},
        "trees": (
            TreeFacts(name="glyphs", levels=(12, 4), hash="0123456789abcde", source="own", licence="CC0"),
        ),
        "records": (make_record(), make_record(level=1, level_name="superclass", num_classes=4)),
        "licence": "mit",
        "tags": ("demo",),
    }  # fmt: skip
    return CardFacts(**(fields | changes))


def split_card(text: str) -> tuple[dict, str]:
    _, header, body = text.split("---\n", 2)
    return yaml.safe_load(header), body


def section(body: str, title: str) -> str:
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", body, re.MULTILINE | re.DOTALL).group(1)


def test_header_repeats_the_facts():
    header, _ = split_card(render_card(make_facts()))
    assert header["library_name"] == "transformers"
    assert header["pipeline_tag"] == "zero-shot-image-classification"
    assert header["base_model"] == "openai/clip-vit-base-patch32"
    assert header["datasets"] == ["org/glyphs"]
    assert header["license"] == "mit" and header["language"] == "en"
    assert header["tags"] == ["hf_hierrobust", "adversarial-robustness", "hier_robust", "demo"]


def test_model_index_equals_the_records():
    facts = make_facts()
    text = render_card(facts)
    header, _ = split_card(text)
    (entry,) = header["model-index"]
    assert entry["name"] == facts.model_name and "model_name" not in header
    assert len(entry["results"]) == len(facts.records)
    for result, record in zip(entry["results"], facts.records):
        clean, robust = result["metrics"]
        assert clean["value"] == record.clean_accuracy and robust["value"] == record.robust_accuracy
        assert "clean" in clean["name"] and "robust" in robust["name"]
        assert "args" not in clean and "args" not in robust, "the attack's constants stand once, in the body"
        assert (result["dataset"]["type"], result["dataset"]["split"]) == (record.dataset, record.split)
        assert result["dataset"]["args"] == {"num_samples": 64}
        level = f"{record.level_name} ({record.num_classes} classes)"
        assert result["dataset"]["config"] == f"{level}; cosine; apgd-ce-20 linf:4/255 native; seed 3"
    # huggingface_hub reads back what it would show on the model's page.
    assert [result.metric_value for result in ModelCard(text).data.eval_results] == [48 / 64, 17 / 64] * 2


def test_eval_results_beside_the_card_equal_the_records(tmp_path):
    local = make_record(dataset="photos")
    facts = make_facts(records=(*make_facts().records, local), repo_id="me/robust")
    write_card(tmp_path, facts)
    entries = parse_eval_result_entries(yaml.safe_load((tmp_path / EVAL_RESULTS).read_text()))
    assert {entry.dataset_id for entry in entries} == {"org/glyphs"}, "the Hub knows no local data"
    assert [entry.value for entry in entries] == [48 / 64, 17 / 64] * 2
    assert [entry.task_id for entry in entries[1:3]] == [
        "zero_shot_robust_leaf",
        "zero_shot_clean_superclass",
    ]
    assert "apgd-ce-20 linf:4/255 native" in entries[1].notes and "apgd" not in entries[0].notes
    assert entries[0].source_url == "https://huggingface.co/me/robust/blob/main/results.json"
    write_card(tmp_path, make_facts(records=()))
    assert not (tmp_path / EVAL_RESULTS).exists(), "what is no longer on the card"


def test_a_card_says_with_what_it_was_trained_and_what_the_model_is_not_for():
    _, body = split_card(render_card(make_facts(versions={"torch": "9.9", "commit": "abc123 with changes"})))
    assert "Trained with torch 9.9, commit abc123 with changes." in section(body, "Training")
    assert "no security boundary" in section(body, "Intended use and misuse")
    assert "Trained with" not in render_card(make_facts())


def test_an_adapter_is_shown_where_its_base_can_be_loaded():
    adapted = make_facts(hyperparameters={"lora_r": 8})
    assert 'folder = snapshot_download("glyph-clip-robust", allow_patterns="adapter/*")' in render_card(
        adapted
    )
    for other in (make_facts(), replace(adapted, base_model="/models/clip")):
        assert "AutoPeftModel" not in render_card(other)


def test_records_of_different_seeds_stay_apart():
    records = (make_record(seed=0), make_record(seed=1, robust_accuracy=9 / 64))
    header, _ = split_card(render_card(make_facts(records=records)))
    results = header["model-index"][0]["results"]
    assert [result["metrics"][1]["value"] for result in results] == [17 / 64, 9 / 64]


def test_measured_table_has_the_base_beside_the_result():
    facts = make_facts(records=(make_record(),))
    _, body = split_card(render_card(facts))
    measured = section(body, "What was measured")
    low, high = (100 * bound for bound in facts.records[0].intervals["robust"])
    row = next(line for line in measured.splitlines() if line.startswith("| leaf"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert [cell.split(" ")[0] for cell in cells[-4:]] == ["87.5", "75.0", "1.6", "26.6"]
    assert cells[-1] == f"26.6 [{low:.1f},\u00a0{high:.1f}]", "the interval stays on one line"
    for said in ("images 64", "seed 3", "apgd-ce-20", "eps 4/255", "torch 9.8.7"):
        assert said in measured
    assert "**Nothing was measured.**" not in body
    attack = "- **apgd-ce-20, linf, eps 4/255, step 1/255, 2 restarts**, space native"
    assert attack in section(body, "Limitations")


def test_a_missing_base_is_said():
    alone = make_record(base=None)
    _, body = split_card(render_card(make_facts(records=(alone,))))
    assert "base model was not measured" in body
    _, body = split_card(
        render_card(make_facts(records=(alone, make_record(level=1, level_name="superclass"))))
    )
    assert "marks that the base was not measured there" in section(body, "What was measured")


def test_no_records_is_said_plainly():
    header, body = split_card(render_card(make_facts(records=())))
    assert "**Nothing was measured.**" in section(body, "What was measured")
    assert "none was run against this checkpoint" in section(body, "Limitations")
    assert not {"model-index", "model_name", "metrics"} & set(header)


def test_body_tells_training_tree_and_citation():
    _, body = split_card(render_card(make_facts(limitations="Small glyphs only.")))
    training = section(body, "Training")
    for row in (
        "| learning_rate | 1e-05 |",
        "| eps | 4/255 |",
        "| levels | 0, 1 |",
        "| vision_model | 87,456,000 |",
    ):
        assert row in training
    tree = section(body, "Class tree")
    for said in ("0123456789abcde", "2 levels", "12, 4 classes", "Source: own.", "Licence: CC0."):
        assert said in tree
    assert "[A paper](https://arxiv.org/abs/2404.12345)" in body
    assert make_facts().citation in section(body, "Citation")
    assert "Small glyphs only." in section(body, "Limitations")


def test_a_forests_trees_are_all_named():
    trees = [TreeFacts(name=f"t{depth}", levels=range(depth, 0, -1), hash=f"h{depth}") for depth in (2, 3)]
    section_of_trees = section(split_card(render_card(make_facts(trees=trees)))[1], "Class trees")
    assert "`t2` (hash `h2`, `t2.tree.json`), 2 levels" in section_of_trees
    assert "with 3, 2, 1 classes" in section_of_trees


def test_a_visual_prompt_is_not_claimed_to_load_in_stock_transformers():
    header, body = split_card(render_card(make_facts(visual_prompt=True)))
    assert header["library_name"] == "hf_hierrobust"
    assert "load_robust_model" in body and "not the model that was measured" in body
    for claim in ("stock `transformers` checkpoint", "pipeline(", "AutoModel."):
        assert claim not in body
    compile(re.search(r"```python\n(.*?)```", body, re.DOTALL).group(1), "card", "exec")


def test_optional_sections_leave_no_trace():
    facts = CardFacts(model_name="m", base_model="org/base", objective="fare", threat_model="linf:1/255")
    header, body = split_card(render_card(facts))
    for absent in ("## Citation", "## Class tree", "hyper-parameter", "None", "\n\n\n"):
        assert absent not in body
    assert not {"license", "datasets"} & set(header)


def test_tables_survive_pipes_and_newlines():
    _, body = split_card(
        render_card(make_facts(hyperparameters={"modules": r"q_proj|v_proj", "note": "a\nb"}))
    )
    assert r"| modules | q_proj\|v_proj |" in body and "| note | a b |" in body


@pytest.mark.parametrize(
    "local", ["/data/models/my-clip", "~/models/my-clip", "./runs/my-clip", r"C:\models\my-clip"]
)
def test_local_base_model_is_named_but_not_linked(local):
    header, body = split_card(render_card(make_facts(base_model=local)))
    assert "base_model" not in header
    assert "`my-clip` fine-tuned" in body


def test_existing_relative_folder_is_no_hub_id(tmp_path, monkeypatch):
    (tmp_path / "runs" / "base").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    header, body = split_card(
        render_card(make_facts(base_model="runs/base", datasets=("runs/base", "org/set")))
    )
    assert "base_model" not in header and header["datasets"] == ["org/set"]
    assert "`base` fine-tuned" in body and "Data: `base`, org/set." in body


def test_no_absolute_path_and_no_token_reach_the_card(tmp_path):
    home = str(tmp_path)
    facts = make_facts(
        model_name=f"{home}/my-run",
        base_model=f"{home}/base-clip",
        datasets=(f"{home}/photos",),
        threat_model=f"linf:4/255 as in {home}/threat.yaml, eps 1/255 or 4/255",
        hyperparameters={
            "output_dir": f"{home}/run-1",
            "config": {"file": f"{home}/a b/demo.yaml"},
            "files": [f"{home}/x.json", "~/cache/y.json"],
            "hub_token": "hf_secret",
        },
        trees=(
            TreeFacts(
                name="t",
                levels=(2, 1),
                hash="ab",
                source=f"file://{home}/tree.json",
                licence="see (/opt/x/LICENSE)",
            ),
        ),
        limitations=f"Trained from '{home}/start.json' only; see https://example.org/a/b and https://a.org/c.",
    )
    text = render_card(facts)
    assert home not in text and "hf_secret" not in text
    assert ABSOLUTE.search(text) is None, ABSOLUTE.search(text)
    names = ("# my-run", "base-clip", "photos", "threat.yaml", "run-1", "demo.yaml", "x.json, y.json")
    for kept in (
        *names,
        "tree.json",
        "LICENSE",
        "start.json",
        "https://example.org/a/b",
        "eps 1/255 or 4/255",
    ):
        assert kept in text, kept


def test_figures_are_embedded_by_relative_path():
    text = render_card(make_facts(figures=("figures/before_after.png",)))
    assert "![Clean and robust accuracy, before and after training](figures/before_after.png)" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_name": ""}, "model_name is empty"),
        ({"figures": ("/data/run/figure.png",)}, "relative to the card's folder"),
        ({"figures": ("figures/../../figure.png",)}, "relative to the card's folder"),
        ({"records": (make_record(), make_record(model="other"))}, "several models"),
        ({"records": (make_record(objective="tecoa"),)}, "objective"),
    ],
)
def test_wrong_facts_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_facts(**changes)


def test_write_card_replaces_whole_or_not_at_all(tmp_path, monkeypatch):
    path = write_card(tmp_path / "run", make_facts())
    before = path.read_text(encoding="utf-8")
    assert before == render_card(make_facts())

    def no_space(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        write_card(tmp_path / "run", replace(make_facts(), records=()))
    assert path.read_text(encoding="utf-8") == before
    assert sorted(entry.name for entry in path.parent.iterdir()) == [".eval_results", "README.md"]


@pytest.mark.parametrize("shared", [None, 0, 3])
def test_kind29_images_shared_with_the_training_are_on_the_card(shared):
    samples = describe_samples(range(64), "stratified by class, seed 0") | {"shared_with_training": shared}
    card = render_card(make_facts(records=(make_record(sample_ids=samples),)))
    assert ("3 of the evaluated images are also training images" in str(card)) == bool(shared)
