"""What was pushed loads by every stock class without this package, and by ours with its head; offline too."""

from __future__ import annotations

import math

import pytest
import torch
from test_push_command import run, sharded, write_run  # noqa: F401
from transformers import AutoTokenizer, CLIPModel

from hf_hierrobust.modeling import RobustCLIPModel
from hf_hierrobust.uploads import public_files

OURS = """
import torch
from hf_hierrobust import RobustCLIPModel
from hf_hierrobust.modeling import load_processor

for revision in {revisions!r}:
    model = RobustCLIPModel.from_pretrained("tester/robust", revision=revision)
    load_processor("tester/robust", revision=revision)
    report([float(model.hier_head.kappa), float(model.logit_scale), model.card_text[:3]])
"""
STOCK = """
import sys
for name in [name for name in sys.modules if name.split(".")[0] == "hf_hierrobust"]:
    del sys.modules[name]
sys.modules["hf_hierrobust"] = None  # whoever imports it fails

import torch
from huggingface_hub import snapshot_download
from peft import AutoPeftModel
from PIL import Image
from transformers import (
    AutoModel, AutoModelForZeroShotImageClassification, AutoProcessor, CLIPModel, CLIPVisionModel,
    CLIPVisionModelWithProjection, pipeline,
)

torch.manual_seed(0)
pixels = torch.rand(2, 3, 32, 32)
processor = AutoProcessor.from_pretrained("tester/robust")
inputs = processor.tokenizer(["a cat", "a dog"], padding=True, return_tensors="pt")

def say(name, model, **options):
    model, info = model.from_pretrained(name, output_loading_info=True, **options)
    vision = type(model).__name__.startswith("CLIPVision")
    assert not info["missing_keys"] and not info["mismatched_keys"], info
    assert vision or not info["unexpected_keys"], info
    model.eval()
    with torch.no_grad():
        if vision:
            out = model(pixel_values=pixels)
            found = getattr(out, "image_embeds", None)
            report((out.pooler_output if found is None else found).tolist())
        else:
            report(model(pixel_values=pixels, **inputs).logits_per_image.tolist())

say("tester/robust", AutoModel)
say("tester/robust", CLIPModel)
say("tester/robust", AutoModelForZeroShotImageClassification)
say("tester/sharded", AutoModel)
say("tester/robust", CLIPVisionModel)
say("tester/robust", CLIPVisionModelWithProjection)
folder = snapshot_download("tester/robust", allow_patterns="adapter/*")
adapted = AutoPeftModel.from_pretrained(f"{folder}/adapter").eval()
with torch.no_grad():
    report(adapted(pixel_values=pixels, **inputs).logits_per_image.tolist())
image = Image.new("RGB", (40, 40), (200, 60, 60))
for dtype in (torch.float32, torch.bfloat16):
    classify = pipeline("zero-shot-image-classification", model="tester/robust", dtype=dtype)
    found = {one["label"]: one["score"] for one in classify(image, candidate_labels=["cat", "dog", "oak"])}
    report([str(classify.model.dtype), found["cat"], found["dog"], found["oak"]])
"""


def files_of(folder) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in public_files(folder)}


@pytest.mark.slow
def test_every_class_loads_the_same_model(hub, run_client, run, sharded, tiny_clip_dir, tmp_path):  # noqa: F811
    repo = hub.add_repo("tester/robust", files_of(run))
    hub.add_repo("tester/sharded", files_of(sharded))
    base = CLIPModel.from_pretrained(tiny_clip_dir)
    base.save_pretrained(tmp_path / "base")
    hub.add_repo("tester/base", {p.name: p.read_bytes() for p in (tmp_path / "base").iterdir()})
    other = RobustCLIPModel.from_pretrained(run)
    with torch.no_grad():
        other.logit_scale.fill_(2.0)
        other.hier_head.kappa.fill_(7.0)
    write_files = tmp_path / "other"
    other.save_pretrained(write_files)
    repo.add_branch("v2")
    changed = {p.name: p.read_bytes() for p in write_files.iterdir() if p.is_file()}
    stored = hub.add_repo("tester/other", changed).files
    repo.commit("v2", repo.files | stored, "v2")

    code = OURS.format(revisions=["main", "v2"])
    (kappa, scale, card), second, *found = run_client(hub, code + STOCK, tmp_path).reports
    local = CLIPModel.from_pretrained(run).eval()
    assert math.isnan(kappa) and scale == float(local.logit_scale) and card == "---"
    assert second == [7.0, 2.0, "---"]
    commit, sha = repo.branches["v2"][-1][0], repo.head
    # From now on there is no Hub: all comes from the cache, as whole models or not at all.
    offline = run_client(hub, OURS.format(revisions=["v2", commit, sha]) + STOCK, tmp_path, offline=True)
    assert [row[:2] for row in offline.reports[:2]] == [[7.0, 2.0]] * 2
    assert offline.reports[3:] == found

    torch.manual_seed(0)
    pixels = torch.rand(2, 3, 32, 32)
    inputs = AutoTokenizer.from_pretrained(run)(["a cat", "a dog"], padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = local(pixel_values=pixels, **inputs).logits_per_image
        base_logits = base.eval()(pixel_values=pixels, **inputs).logits_per_image
        vision = local.vision_model(pixels).pooler_output
        embedded = local.visual_projection(vision)
    auto, clip, zero_shot, shards, tower, projected, adapted, fp32, bf16 = found
    assert (logits - base_logits).abs().max() > 0.01, "the adapter does something"
    for said, wanted in ((auto, logits), (clip, logits), (zero_shot, logits), (shards, base_logits),
                         (tower, vision), (projected, embedded)):  # fmt: skip
        assert torch.equal(torch.tensor(said), wanted)
    torch.testing.assert_close(torch.tensor(adapted), logits, atol=1e-5, rtol=1e-5)
    assert fp32[0] == "torch.float32" and bf16[0] == "torch.bfloat16"
    assert sum(fp32[1:]) == pytest.approx(1, abs=1e-4) and bf16[1:] == pytest.approx(fp32[1:], abs=0.02)
