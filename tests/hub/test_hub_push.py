"""push_folder against a local Hub: what arrives, what stays at home, and what it says when it refuses."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file, save_file
from test_hub_card import make_facts, make_record
from transformers import AutoTokenizer, CLIPModel

from hf_hierrobust.evaluation.record_files import save_records
from hf_hierrobust.hub import check_folder, push_folder, write_card
from hf_hierrobust.uploads import EVAL_RESULTS

PRIVATE = (
    "training_args.bin",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
    "checkpoint-3/model.safetensors",
    "checkpoint-3/training_args.bin",
    "adapter/optimizer.pt",
    "checkpoint-3/label_tree.json",
    "runs/events.out.tfevents.1",
    "train.log",
    "notes.txt",
    ".env",
    "data.pkl",
    "another.tree.json",
    "private/label_tree.json",
    "figures/unshown.png",
    "results.json.bak",
    "adapter/README.md",
)


@pytest.fixture
def run_folder(tiny_clip_dir, tmp_path):
    """Output folder of a pretended run: a stock checkpoint, what goes along with it, and what is private."""
    folder = tmp_path / "run"
    shutil.copytree(tiny_clip_dir, folder)
    save_file({"log_curvature": torch.zeros(1)}, folder / "hier_head.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config["_name_or_path"] = "/home/hf_secret/models/clip"
    config["hier_robust"] = {"trees": [{"name": "label", "hash": "0", "sizes": [1]}]}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer["name_or_path"] = "C:\\Users\\hf_secret\\clip"
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (folder / "label.tree.json").write_text('{"paths": {"cat": ["animal"]}}')
    record = make_record()
    save_records(
        folder / "results.json", [make_record(attack=record.attack | {"weights": "/home/hf_secret/a.pt"})]
    )
    (folder / "figures").mkdir()
    Image.new("RGB", (4, 4)).save(folder / "figures" / "before_after.png")
    write_card(folder, make_facts(repo_id="tester/robust-clip", figures=("figures/before_after.png",)))
    for name in PRIVATE:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("hf_secret")
    return folder


ROUND_TRIP = """
from hf_hierrobust.hub import push_folder

first = push_folder({folder!r}, "robust-clip", private=True, commit_message="first")
second = push_folder({folder!r}, "tester/robust-clip")
report([first.oid, second.oid, first.commit_url])

# From here on nothing may come from the package: this is what a stranger's script does.
import sys
for name in [name for name in sys.modules if name.split(".")[0] == "hf_hierrobust"]:
    del sys.modules[name]
sys.modules["hf_hierrobust"] = None

import re
import torch
from huggingface_hub import HfApi, ModelCard
from transformers import AutoModel, AutoProcessor, pipeline

report(HfApi().list_repo_files("tester/robust-clip"))
model, loading = AutoModel.from_pretrained("tester/robust-clip", output_loading_info=True)
report([type(model).__name__, {{key: list(value) for key, value in loading.items()}}])
torch.manual_seed(0)
pixels = torch.rand(2, 3, 32, 32)
processor = AutoProcessor.from_pretrained("tester/robust-clip")
inputs = processor.tokenizer(["a cat", "a dog"], padding=True, return_tensors="pt")
with torch.no_grad():
    report(model(pixel_values=pixels, **inputs).logits_per_image.tolist())
classify = pipeline("zero-shot-image-classification", model="tester/robust-clip")
predictions = classify("image.png", candidate_labels=["cat", "dog", "car"])
report([[prediction["label"], prediction["score"]] for prediction in predictions])

card = ModelCard.load("tester/robust-clip")
report(card.text)
for snippet in re.findall(r"```python\\n(.*?)```", card.text, re.DOTALL):
    exec(snippet, {{}})
"""


def test_round_trip_with_stock_transformers(hub, run_client, run_folder, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "image.png")
    client = run_client(hub, ROUND_TRIP.format(folder=str(run_folder)), tmp_path)
    (first, second, url), listed, (kind, loading), logits, scores, card = client.reports

    repo = hub.repos["tester/robust-clip"]
    assert repo.private
    assert [message for _, message, _ in repo.commits] == ["initial commit", "first"]
    assert first == second == repo.head and url.endswith(first)

    expected = {path.name for path in run_folder.iterdir() if path.is_file()} - set(PRIVATE)
    assert {"README.md", "config.json", "model.safetensors", "hier_head.safetensors"} <= expected
    assert {"label.tree.json", "results.json"} <= expected
    assert set(listed) == expected | {"figures/before_after.png", EVAL_RESULTS, ".gitattributes"}
    assert not any(b"hf_secret" in blob.content for blob in repo.files.values())
    assert not any(b"hf_secret" in content for content in hub.lfs_store.values())
    assert repo.files["model.safetensors"].content == (run_folder / "model.safetensors").read_bytes()
    assert sum(method == "PUT" for method, _, _ in hub.log) == 3, "second push sent a file again"

    assert kind == "CLIPModel" and not any(loading.values()), loading
    local = CLIPModel.from_pretrained(run_folder).eval()
    torch.manual_seed(0)
    pixels = torch.rand(2, 3, 32, 32)
    inputs = AutoTokenizer.from_pretrained(run_folder)(["a cat", "a dog"], padding=True, return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(
            torch.tensor(logits), local(pixel_values=pixels, **inputs).logits_per_image
        )
    assert sorted(label for label, _ in scores) == ["car", "cat", "dog"]
    assert sum(score for _, score in scores) == pytest.approx(1, abs=1e-4)
    assert card == ModelCard.load(run_folder / "README.md").text
    assert "tensor(" in client.stdout, "the card's second example printed no logits"


REFUSALS = """
from huggingface_hub import HfApi
from hf_hierrobust.hub import push_folder

def attempt(repo_id, **options):
    try:
        push_folder({folder!r}, repo_id, **options)
        report(["pushed", ""])
    except Exception as error:
        report([[kind.__name__ for kind in type(error).__mro__], str(error)])

attempt("robust-clip")
attempt("robust-clip", token="hf_wrong")
attempt("somebody-else/robust-clip", token={token!r})
api = HfApi(token={token!r})
api.create_repo("with-adapter")
api.upload_file(path_or_fileobj=b"{{}}", path_in_repo="adapter_config.json", repo_id="tester/with-adapter")
attempt("with-adapter", token={token!r})
"""


def test_refused_pushes_name_the_fix(hub, run_client, run_folder, tmp_path):
    code = REFUSALS.format(folder=str(run_folder), token=hub.token)
    missing, bad, foreign, adapter = run_client(hub, code, tmp_path, token=None).reports
    assert "LocalTokenNotFoundError" in missing[0]
    assert "hf auth login" in missing[1] and "HF_TOKEN" in missing[1]
    assert "PermissionError" in bad[0]
    assert "HTTP 401" in bad[1] and "hf auth login" in bad[1] and "hf_wrong" not in bad[1]
    assert "PermissionError" in foreign[0] and "HTTP 403" in foreign[1] and "somebody-else" in foreign[1]
    assert "ValueError" in adapter[0] and "adapter_config.json" in adapter[1]
    assert list(hub.repos) == ["tester/with-adapter"]
    assert not any("preupload" in path for _, path, _ in hub.log if "with-adapter" not in path)
    assert "model.safetensors" not in hub.repos["tester/with-adapter"].files


@pytest.mark.parametrize("repo_id", ["a/b/c", "-clip", "clip--robust", "my clip", "clip.git", ""])
def test_bad_repo_id(run_folder, repo_id):
    with pytest.raises(ValueError, match=r"repo_id=.*namespace/name"):
        push_folder(run_folder, repo_id, token="hf_unused")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "README.md", "processor_config.json"])
def test_incomplete_folder(run_folder, name):
    (run_folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(name)):
        push_folder(run_folder, "robust-clip", token="hf_unused")


def test_folder_must_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match="not a directory"):
        check_folder(tmp_path / "nowhere")


def test_siglip_is_a_plain_checkpoint_too(run_folder):
    path = run_folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "siglip"}))
    assert check_folder(run_folder) == run_folder


@pytest.mark.parametrize("change", [{"model_type": "bert"}, {"auto_map": {"AutoModel": "modeling.Model"}}])
def test_only_plain_checkpoints(run_folder, change):
    path = run_folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match="only plain checkpoints of type clip or siglip"):
        check_folder(run_folder)


def test_truncated_config(run_folder):
    (run_folder / "config.json").write_text('{"model_type": "cl')
    with pytest.raises(ValueError, match=r"config\.json is not JSON"):
        check_folder(run_folder)


def test_merged_weights_beside_an_adapter(run_folder):
    (run_folder / "adapter" / "adapter_config.json").write_text("{}")
    assert check_folder(run_folder) == run_folder, "an adapter in its own subfolder is allowed"
    (run_folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"a second time on top of the merged weights.*'adapter/'"):
        check_folder(run_folder)


def test_adapter_alone_must_be_merged(run_folder):
    (run_folder / "model.safetensors").rename(run_folder / "adapter_model.safetensors")
    with pytest.raises(FileNotFoundError, match="merge_and_unload"):
        check_folder(run_folder)


@pytest.mark.parametrize("name", ["hier_head.log_curvature", "vision_model.x.q_proj.lora_A.default.weight"])
def test_tensors_that_stock_clip_lacks(run_folder, name):
    path = run_folder / "model.safetensors"
    save_file(load_file(path) | {name: torch.zeros(1)}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="1 tensors unknown to stock CLIP"):
        check_folder(run_folder)
