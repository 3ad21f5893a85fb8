"""`trainer.push_to_hub()` and `model.push_to_hub()` upload what stock transformers loads, with the card."""

from __future__ import annotations

import json

PUSH = """
import sys
sys.path.insert(0, {tests!r})
from tiny_data import CLASSES, PATHS, make_images
from transformers import AutoProcessor
from hf_hierrobust import (
    ClassSet, LabelTree, PixelDataset, RobustCLIPModel, RobustCLIPTrainer, RobustTrainingArguments,
)
from hf_hierrobust.hierarchy import as_forest

args = RobustTrainingArguments(
    "run", max_steps=2, per_device_train_batch_size=8, hub_model_id="tester/robust-clip", report_to=[],
    save_steps=1, push_to_hub=True, hub_strategy="every_save", hub_always_push=True, disable_tqdm=True,
)
trainer = RobustCLIPTrainer(
    RobustCLIPModel.from_pretrained({base!r}),
    args,
    processing_class=AutoProcessor.from_pretrained({base!r}),
    class_set=ClassSet.from_names(CLASSES),
    tree=as_forest(LabelTree.from_paths(PATHS, name="tiny")),
    train_dataset=PixelDataset(make_images(16)),
)
trainer.train()
trainer.push_to_hub()
model = RobustCLIPModel.from_pretrained("tester/robust-clip")
report(bool(model.hier_head.calibrated))
report([float(model.hier_head.kappa), float(trainer.model.hier_head.kappa)])
model.push_to_hub("tester/copy")
proposed = trainer.push_to_hub(create_pr=True, tags=["proposed"])
trainer.push_to_hub("Second version", revision="v2", tags=["second"])
trainer.args.hub_model_id = "tester/secret"
job = trainer.push_to_hub(private=True, blocking=False)
report([proposed.pr_url, job.result().commit_message])
"""

LOAD = """
import sys
sys.modules["hf_hierrobust"] = None
import torch
from transformers import AutoModel
for name in ("tester/robust-clip", "tester/copy"):
    model, info = AutoModel.from_pretrained(name, output_loading_info=True)
    report([type(model).__name__, {k: sorted(v) for k, v in info.items()}])
    report(float(sum(p.double().sum() for p in model.parameters())))
"""


def test_trainer_and_model_push(hub, run_client, tiny_clip_dir, tmp_path, pytestconfig):
    tests = str(pytestconfig.rootpath / "tests")
    calibrated, (pushed_kappa, kappa), (proposed, message) = run_client(
        hub, PUSH.format(tests=tests, base=tiny_clip_dir), tmp_path
    ).reports
    assert calibrated and pushed_kappa == kappa

    repo, copy = hub.repos["tester/robust-clip"], hub.repos["tester/copy"]
    assert {"README.md", "config.json", "model.safetensors", "hier_head.safetensors"} <= set(repo.files)
    assert {"README.md", "config.json", "model.safetensors", "hier_head.safetensors"} <= set(copy.files)
    assert any("Training in progress" in message for _, message, _ in repo.commits)
    for name in ("optimizer.pt", "scheduler.pt", "training_args.bin"):
        assert name not in repo.files
    # Training pushes checkpoints as they are, without leaving half-trained weights in the output directory.
    card = repo.files["README.md"].content.decode()
    assert "2604.18867" in card and "nothing was measured" in card.lower().replace("\n", " ")
    assert copy.files["README.md"].content == repo.files["README.md"].content
    config = json.loads(repo.files["config.json"].content)
    assert config["architectures"] == ["CLIPModel"] and config["hier_robust"]["objective"] == "hier_robust"

    # Pull request, branch and visibility are the caller's: main is as it was.
    assert proposed.endswith("/discussions/1") and message == "Robust CLIP"
    tags = {name: repo.at(name)[1]["README.md"].content.decode() for name in ("main", "refs/pr/1", "v2")}
    assert ["- proposed" in card for card in tags.values()] == [False, True, True]
    assert ["- second" in card for card in tags.values()] == [False, False, True]
    assert repo.branches["v2"][-1][1] == "Second version" and not repo.private
    assert hub.repos["tester/secret"].private and "model.safetensors" in hub.repos["tester/secret"].files

    (first, loading), first_sum, (second, copied), second_sum = run_client(hub, LOAD, tmp_path).reports
    assert first == second == "CLIPModel" and not any(loading.values()) and not any(copied.values())
    assert first_sum == second_sum
