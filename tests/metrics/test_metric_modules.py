"""The metric modules load offline and give what was computed by hand, and what the package computes."""

from __future__ import annotations

import ast
import importlib.util
import io
import json
import math
import sys
from pathlib import Path

import evaluate
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from transformers import AutoProcessor, CLIPModel
from transformers.trainer_utils import EvalPrediction

from hf_hierrobust.data import load_class_set
from hf_hierrobust.evaluation.metrics import hierarchical_distance, level_accuracies
from hf_hierrobust.hierarchy import load_forest

METRICS = Path(__file__).resolve().parents[2] / "metrics"
NAMES = ("hierarchical_accuracy", "mistake_severity", "robust_accuracy")
LEVELS = [[0, 0, 1, 1, 2], [0, 0, 0, 0, 1]]
"""Fox, wolf; oak, rose; chair, below animal, plant, thing, below living, dead."""


@pytest.fixture(scope="module", autouse=True)
def modules(tmp_path_factory):
    """The library copies a script it loads into its cache; nothing of it is asked of the Hub."""
    with pytest.MonkeyPatch.context() as patch:
        cache = str(tmp_path_factory.mktemp("modules"))
        patch.setattr(evaluate.config, "HF_MODULES_CACHE", cache)
        patch.setattr(evaluate.config, "HF_EVALUATE_OFFLINE", True)
        # A metric loaded before, from another cache, would have the package of these modules.
        for name in [name for name in sys.modules if name.partition(".")[0] == "evaluate_modules"]:
            patch.delitem(sys.modules, name)
        patch.syspath_prepend(cache)
        yield


def load(name: str):
    return evaluate.load(str(METRICS / name), keep_in_memory=True)


def test_accuracy_of_each_level_by_hand():
    # fox right; wolf as fox: animal right; oak as fox: living right; chair as rose: all wrong; rose right
    found = load("hierarchical_accuracy").compute(
        predictions=[0, 0, 0, 3, 3], references=[0, 1, 2, 4, 3], levels=LEVELS
    )
    assert found == {"accuracy": 2 / 5, "accuracy_level_1": 3 / 5, "accuracy_level_2": 4 / 5}
    assert load("hierarchical_accuracy").compute(predictions=[1, 0], references=[1, 1]) == {"accuracy": 0.5}


def test_severity_by_hand():
    # heights 0, 1, 2, 3, 0
    found = load("mistake_severity").compute(
        predictions=[0, 0, 0, 3, 3], references=[0, 1, 2, 4, 3], levels=LEVELS
    )
    assert found == {"mistake_severity": 2.0, "hierarchical_distance": 6 / 5}
    right = load("mistake_severity").compute(predictions=[1], references=[1], levels=LEVELS)
    assert math.isnan(right["mistake_severity"]) and right["hierarchical_distance"] == 0


def test_robust_accuracy_by_hand():
    # right and stays; right and falls; wrong, made right by the attack, does not count; right and stays
    found = load("robust_accuracy").compute(
        predictions=[0, 1, 0, 3], attacked_predictions=[0, 2, 2, 3], references=[0, 1, 2, 3]
    )
    assert found["clean_accuracy"] == 0.75 and found["robust_accuracy"] == 0.5
    assert found["attack_success_rate"] == pytest.approx(1 / 3)
    wrong = load("robust_accuracy").compute(predictions=[1], attacked_predictions=[0], references=[0])
    assert wrong["robust_accuracy"] == 0 and math.isnan(wrong["attack_success_rate"])


def test_they_agree_with_the_package_on_a_built_in_tree_in_batches():
    tree = load_forest("cifar100").trees[0]
    levels = [tree.ancestors(level).tolist() for level in range(1, tree.num_levels)]
    draw = torch.Generator().manual_seed(0)
    predicted, true = (torch.randint(0, 100, (300,), generator=draw) for _ in range(2))
    accuracy, severity = load("hierarchical_accuracy"), load("mistake_severity")
    for part in (slice(0, 130), slice(130, 300)):
        for metric in (accuracy, severity):
            metric.add_batch(predictions=predicted[part], references=true[part])
    assert list(accuracy.compute(levels=levels).values()) == level_accuracies(predicted, true, tree)
    found = severity.compute(levels=levels)
    assert found["mistake_severity"] == pytest.approx(hierarchical_distance(predicted, true, tree))
    assert found["hierarchical_distance"] == pytest.approx(
        hierarchical_distance(predicted, true, tree, mistakes_only=False)
    )


def test_real_photos_against_the_data_sets_own_superclasses(shared_dir):
    """The expected values come from the parquet's coarse labels, the predictions from stock transformers."""
    source = shared_dir / "models" / "clip-small"
    table = pq.read_table(shared_dir / "data/cifar100/test.parquet")
    fine, coarse = (table[name].to_pylist() for name in ("label", "coarse_label"))
    parent = dict(zip(fine, coarse))
    photos = [Image.open(io.BytesIO(row["bytes"])) for row in table["image"][:96].to_pylist()]
    classes = load_class_set("cifar100")
    prompts = [f"a photo of a {name}." for name in classes.class_names]
    inputs = AutoProcessor.from_pretrained(source)(
        images=photos, text=prompts, padding="max_length", return_tensors="pt"
    )
    with torch.no_grad():
        logits = CLIPModel.from_pretrained(source, dtype=torch.float32)(**inputs).logits_per_image
    predicted, true = logits.argmax(1).tolist(), fine[:96]
    right = [parent[p] == c for p, c in zip(predicted, coarse)]
    exact = [p == t for p, t in zip(predicted, true)]
    tree = load_forest("cifar100", classes.class_names).trees[0]
    found = load("hierarchical_accuracy").compute(
        predictions=predicted, references=true, levels=[tree.ancestors(1).tolist()]
    )
    assert found == {"accuracy": sum(exact) / 96, "accuracy_level_1": sum(right) / 96}
    assert 0.2 < found["accuracy"] < found["accuracy_level_1"] < 1
    severity = load("mistake_severity").compute(
        predictions=predicted, references=true, levels=[tree.ancestors(1).tolist()]
    )
    heights = [1 if same else 2 for same, hit in zip(right, exact) if not hit]
    assert severity["mistake_severity"] == pytest.approx(sum(heights) / len(heights))
    dark = [p if keep else -1 for p, keep in zip(predicted, (i % 3 for i in range(96)))]
    robust = load("robust_accuracy").compute(
        predictions=predicted, attacked_predictions=dark, references=true
    )
    assert robust["robust_accuracy"] == sum(hit for i, hit in enumerate(exact) if i % 3) / 96


def test_as_compute_metrics_of_a_trainer():
    metric = load("hierarchical_accuracy")

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        return metric.compute(
            predictions=prediction.predictions.argmax(-1), references=prediction.label_ids, levels=LEVELS
        )

    logits = torch.eye(5)[[0, 0, 2]].numpy()
    found = compute_metrics(EvalPrediction(logits, torch.tensor([0, 1, 3]).numpy()))
    assert found == {"accuracy": 1 / 3, "accuracy_level_1": 1.0, "accuracy_level_2": 1.0}


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ([[0, 0, 1]], "leaves are 0..2"),
        ([[0, 0, 1, 1, 2], [0, 0]], "needs one for every leaf"),
        ([[0, 0, 1, 1, 2], [0, 1, 0, 0, 1]], "level 2 parts leaves"),
    ],
)
def test_levels_that_are_no_tree_are_refused(levels, words):
    with pytest.raises(ValueError, match=words):
        load("hierarchical_accuracy").compute(predictions=[4], references=[0], levels=levels)


@pytest.mark.parametrize("name", NAMES)
def test_a_space_has_its_card_and_an_app_that_answers(name):
    folder = METRICS / name
    _, front, body = (folder / "README.md").read_text().split("---\n", 2)
    facts = yaml.safe_load(front)
    assert facts["sdk"] == "gradio" and (folder / facts["app_file"]).is_file() and "metric" in facts["tags"]
    assert (folder / "app.py").read_text() == (METRICS / NAMES[0] / "app.py").read_text()
    spec = importlib.util.spec_from_file_location(f"app_of_{name}", folder / "app.py")
    app = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(app)
    example = (folder / "example.json").read_text()
    shown = ast.literal_eval("{" + body.split("# {", 1)[1].split("\n", 1)[0])  # the line of the card
    assert app.compute(example) == pytest.approx(shown)
    assert "error" in app.compute("{") and "error" in app.compute('{"predictions": [0]}')
    broken = json.dumps(json.loads(example) | {"references": []})
    assert "error" in app.compute(broken)
    assert "at most" in app.compute(" " * 200_001)["error"]
