"""The embedded default: trained, pushed, loaded by a process without this package, its card read there."""

from __future__ import annotations

import json
import math

import pytest
import torch
from tiny_data import make_tiny_clip
from transformers import AutoTokenizer, CLIPModel

TRAIN = """
import os
os.environ["HF_HIERROBUST_CACHE"] = "rendered"

from hf_hierrobust.cli.main import main

main({train!r})
main(["push", "demo", "tester/demo"])
"""
STOCK = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_hierrobust":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
try:
    import hf_hierrobust
    report("imported")
except ModuleNotFoundError:
    report("absent")

import torch
from huggingface_hub import ModelCard
from PIL import Image
from transformers import AutoModel, AutoTokenizer, CLIPModel, pipeline

torch.manual_seed(0)
pixels = torch.rand(2, 3, 32, 32)
inputs = AutoTokenizer.from_pretrained("tester/demo")({texts!r}, padding=True, return_tensors="pt")
for kind in (AutoModel, CLIPModel):
    with torch.no_grad():
        model = kind.from_pretrained("tester/demo").eval()
        report(model(pixel_values=pixels, **inputs).logits_per_image.tolist())
classify = pipeline("zero-shot-image-classification", model="tester/demo")
report(classify(Image.new("RGB", (50, 40), (200, 60, 60)), candidate_labels=["cat", "dog", "chess king"]))
card = ModelCard.load("tester/demo")
report([[r.dataset_name, r.dataset_config, r.dataset_args, r.metric_name, r.metric_value]
        for r in card.data.eval_results])
report(any(name.split(".")[0] == "hf_hierrobust" for name in sys.modules))
"""
TEXTS = ["a cat", "a chess king"]


@pytest.mark.slow
def test_trained_pushed_and_loaded_without_the_package(hub, run_client, tmp_path, pytestconfig):
    pytest.importorskip("matplotlib", reason="matplotlib renders the embedded images")
    config = pytestconfig.rootpath / "examples/configs/demo.yaml"
    options = {
        "config": config,
        "model_name_or_path": make_tiny_clip(tmp_path / "tiny", context=40),
        "output_dir": "demo",
        "max_train_samples": 36,
        "eval_samples": 36,
        "eval_num_steps": 2,
        "bf16": "false",
        "bf16_search": "false",
        "disable_tqdm": "true",
    }
    train = ["train", *(str(word) for name, value in options.items() for word in (f"--{name}", value))]
    run_client(hub, TRAIN.format(train=train), tmp_path)
    absent, auto, clip, answer, results, imported = run_client(
        hub, STOCK.format(texts=TEXTS), tmp_path
    ).reports
    assert absent == "absent" and not imported

    folder = tmp_path / "demo"
    torch.manual_seed(0)
    pixels = torch.rand(2, 3, 32, 32)
    inputs = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    logits = []
    for source in (folder, options["model_name_or_path"]):
        with torch.no_grad():
            model = CLIPModel.from_pretrained(source).eval()
            logits.append(model(pixel_values=pixels, **inputs).logits_per_image)
    assert not torch.equal(*logits), "training moved the weights"
    assert torch.equal(torch.tensor(auto), logits[0]) and torch.equal(torch.tensor(clip), logits[0])
    assert math.isclose(sum(one["score"] for one in answer), 1, abs_tol=1e-5) and len(answer) == 3

    # From the file, not by the code that wrote the card.
    records = json.loads((folder / "results.json").read_text())["records"]
    assert [record["level"] for record in records] == [0, 1, 2]
    wanted = [
        ["glyphs", f"{record['level_name']} ({record['num_classes']} classes)", {"num_samples": 36}, metric,
         record[metric.replace(" ", "_")]]
        for record in records for metric in ("clean accuracy", "robust accuracy")
    ]  # fmt: skip
    assert [[name, where.split(";")[0], *rest] for name, where, *rest in results] == wanted
