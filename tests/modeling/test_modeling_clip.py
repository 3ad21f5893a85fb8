"""RobustCLIPModel saves stock checkpoints, and loads its own and stock ones."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, BertConfig, CLIPModel

from hf_hierrobust.modeling import CorruptSideFileError, RobustCLIPModel, encode_prompts, load_robust_model

SIDE_FILE = "hier_head.safetensors"
PROMPTS = ["this is a photo of a cat", "oak", "this is a photo of a rose animal"]


def trained(directory: str) -> RobustCLIPModel:
    """The tiny CLIP with every number of its head away from the initial value."""
    model = RobustCLIPModel.from_pretrained(directory)
    with torch.no_grad():
        for value, (name, tensor) in enumerate(model.hier_head.state_dict().items()):
            if name != "curvature":
                tensor.fill_(0.1 + value / 7)
    return model.eval()


@pytest.fixture(scope="module")
def inputs(tiny_clip_dir) -> dict[str, torch.Tensor]:
    tokenizer = AutoProcessor.from_pretrained(tiny_clip_dir).tokenizer
    pixels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return dict(tokenizer(PROMPTS, padding=True, return_tensors="pt")) | {"pixel_values": pixels}


@pytest.fixture(scope="module")
def model(tiny_clip_dir) -> RobustCLIPModel:
    return trained(tiny_clip_dir)


@pytest.fixture(scope="module")
def saved(model, tiny_clip_dir, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("ours")
    model.save_pretrained(directory)
    AutoProcessor.from_pretrained(tiny_clip_dir).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def corrupt(saved, tmp_path_factory) -> dict[str, Path]:
    """Checkpoints whose side file is cut short, lacks a tensor, or is of another shape or run."""
    folders = {}
    for name in ("truncated", "empty", "missing", "shape", "curvature"):
        folders[name] = tmp_path_factory.mktemp("corrupt") / name
        shutil.copytree(saved, folders[name])
        path = folders[name] / SIDE_FILE
        state = load_file(path)
        if name == "truncated":
            path.write_bytes(path.read_bytes()[:-5])
        elif name == "empty":
            path.write_bytes(b"")
        else:
            change = {"missing": None, "shape": torch.ones(3), "curvature": torch.tensor(2.0)}[name]
            key = "curvature" if name == "curvature" else "kappa"
            state = {k: v for k, v in (state | {key: change}).items() if v is not None}
            save_file(state, path)
    return folders


STOCK_ONLY = """
import json, sys
sys.modules["hf_hierrobust"] = None  # as if the package had never existed
from safetensors.torch import load_file
from PIL import Image
from transformers import AutoModel, CLIPModel, pipeline

ours, corrupt, polluted, inputs = sys.argv[1:]
inputs, found = load_file(inputs), {}
for cls in (AutoModel, CLIPModel):
    for name, folder in (("", ours), ("-corrupt", corrupt)):
        model, info = cls.from_pretrained(folder, output_loading_info=True)
        logits = model.eval()(**inputs).logits_per_image
        report = {key: sorted(map(str, value)) for key, value in info.items()}
        found[cls.__name__ + name] = [type(model).__name__, logits.tolist(), report]
pipe = pipeline("zero-shot-image-classification", model=ours)
image = Image.radial_gradient("L").resize((40, 40)).convert("RGB")
labels = ["cat", "oak", "rose"]
scores = pipe(image, candidate_labels=labels, hypothesis_template="{}")
found["pipeline"] = {s["label"]: s["score"] for s in scores}
try:
    import hf_hierrobust
except ImportError:
    found["package"] = "absent"
print(json.dumps(found))
print("=== polluted", file=sys.stderr, flush=True)
CLIPModel.from_pretrained(polluted)
"""


@pytest.fixture(scope="module")
def stock(saved, corrupt, inputs, tmp_path_factory) -> tuple[dict, str, str]:
    """What stock transformers makes of the checkpoint in a process without this package.

    Returns its findings, what it wrote to stderr, and, as a control, what it writes about a checkpoint
    with the head inside ``model.safetensors``.
    """
    work = tmp_path_factory.mktemp("stock")
    save_file(inputs, work / "inputs.safetensors")
    polluted = work / "polluted"
    shutil.copytree(saved, polluted)
    state = load_file(polluted / "model.safetensors")
    save_file(state | {"hier_head.kappa": torch.ones(())}, polluted / "model.safetensors", {"format": "pt"})
    arguments = [saved, corrupt["truncated"], polluted, work / "inputs.safetensors"]
    done = subprocess.run(
        [sys.executable, "-c", STOCK_ONLY, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=work,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "info"},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    before, control = done.stderr.split("=== polluted")
    return json.loads(done.stdout.splitlines()[-1]), before + done.stdout, control


class TestStockTransformers:
    def test_loads_with_an_empty_report(self, stock):
        found, output, control = stock
        assert found["package"] == "absent"
        for name in ("AutoModel", "CLIPModel"):
            kind, _, report = found[name]
            assert kind == "CLIPModel"
            assert {"missing_keys", "unexpected_keys", "mismatched_keys"} <= report.keys()
            assert not any(report.values()), report
        for word in ("UNEXPECTED", "MISSING", "MISMATCH", "hier_head", "newly initialized"):
            assert word not in output
        assert "UNEXPECTED" in control and "hier_head.kappa" in control, "the control must be reported"

    def test_gives_our_logits(self, stock, model, inputs):
        with torch.no_grad():
            expected = model(**inputs).logits_per_image
        for name in ("AutoModel", "CLIPModel", "AutoModel-corrupt", "CLIPModel-corrupt"):
            assert torch.allclose(torch.tensor(stock[0][name][1]), expected, atol=1e-5)
        assert expected.std() > 0.1

    def test_zero_shot_pipeline(self, stock, model, saved):
        from PIL import Image

        from hf_hierrobust.classifiers import ZeroShotClassifier
        from hf_hierrobust.modeling import PixelPipeline

        processor = AutoProcessor.from_pretrained(saved)
        image = Image.radial_gradient("L").resize((40, 40)).convert("RGB")
        resized = processor.image_processor(image, do_normalize=False, return_tensors="pt")["pixel_values"]
        states = encode_prompts(model, processor.tokenizer, ["cat", "oak", "rose"])
        classifier = ZeroShotClassifier(model, PixelPipeline(processor.image_processor), states)
        with torch.no_grad():
            expected = classifier(resized).softmax(1)[0]
        scores = stock[0]["pipeline"]
        assert [scores[n] for n in ("cat", "oak", "rose")] == pytest.approx(expected.tolist(), abs=1e-5)

    def test_is_untouched_by_a_corrupt_side_file(self, stock):
        for name in ("AutoModel-corrupt", "CLIPModel-corrupt"):
            assert not any(stock[0][name][2].values())


def test_checkpoint_names_the_stock_class_and_holds_no_head(saved, model):
    config = json.loads((saved / "config.json").read_text())
    assert config["architectures"] == ["CLIPModel"] and config["model_type"] == "clip"
    constants = {"ball_margin": 1e-3, "max_tangent_norm": 4.0, "tangent_norm": None, "vic_factor": 0.9}
    assert config["hier_robust"] == {"curvature": 1.0, "text_levels": 1} | constants
    assert not any("hier" in key for key in load_file(saved / "model.safetensors"))
    assert load_file(saved / SIDE_FILE).keys() == model.hier_head.state_dict().keys()
    assert not list(saved.glob("*.tmp")) and not list(saved.glob("*.bin"))


def test_reload_is_bit_equal(saved, model):
    loaded, info = RobustCLIPModel.from_pretrained(saved, output_loading_info=True)
    expected = model.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    for key, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, expected[key]), key
    assert loaded.hier_head.calibrated and loaded.hier_head.kappa == model.hier_head.kappa
    assert not any(info.values())


def test_config_facts_rebuild_the_head(model, tmp_path):
    config = type(model.config)(**model.config.to_dict())
    config.hier_robust = {"curvature": 0.3, "ball_margin": 0.02, "max_tangent_norm": 2.5, "tree": "cifar100"}
    RobustCLIPModel(config).save_pretrained(tmp_path)
    loaded = RobustCLIPModel.from_pretrained(tmp_path)
    head = loaded.hier_head
    assert head.curvature == pytest.approx(0.3) and head.ball_margin == 0.02 and head.max_tangent_norm == 2.5
    assert loaded.facts() == config.hier_robust


@pytest.mark.parametrize("fill", [0.0, 1e30])
def test_head_of_a_stock_checkpoint_is_initialised(tiny_clip_dir, monkeypatch, fill):
    """from_pretrained builds on the meta device: what it does not load is whatever the memory held."""
    real = torch.empty_like

    def dirty(*args, **kwargs):
        out = real(*args, **kwargs)
        return out.fill_(fill) if out.is_floating_point() and out.device.type != "meta" else out

    monkeypatch.setattr(torch, "empty_like", dirty)
    loaded = RobustCLIPModel.from_pretrained(tiny_clip_dir)
    head = loaded.hier_head
    for scale in (head.log_image_scale, head.log_text_scale):
        assert scale.item() == pytest.approx(-0.5 * math.log(32), abs=1e-6)
        assert scale.device.type == "cpu" and scale.requires_grad
    assert head.curvature.item() == 1.0
    assert head.kappa.isnan() and head.vic_radius.isnan() and not head.calibrated
    stock = CLIPModel.from_pretrained(tiny_clip_dir).state_dict()
    for key, tensor in loaded.state_dict().items():
        assert key.startswith("hier_head.") or torch.equal(tensor, stock[key])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("truncated", ""),
        ("empty", ""),
        ("missing", "kappa"),
        ("shape", "size mismatch for kappa"),
        ("curvature", "trained at curvature 2, the config says 1"),
    ],
)
def test_corrupt_side_file(corrupt, inputs, model, name, reason):
    with pytest.raises(CorruptSideFileError, match=rf"{name}/{SIDE_FILE} is corrupt \(.+\)") as caught:
        RobustCLIPModel.from_pretrained(corrupt[name])
    message = str(caught.value)
    assert reason in message and "hier_head=False" in message and "CLIPModel.from_pretrained" in message
    loaded = RobustCLIPModel.from_pretrained(corrupt[name], hier_head=False).eval()
    assert not loaded.hier_head.calibrated
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits_per_image, model(**inputs).logits_per_image)


def test_a_checkpoint_of_another_kind_is_refused(tmp_path):
    BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"is a 'bert' checkpoint, not a dual encoder of images and text"):
        RobustCLIPModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_checkpoints_load_in_fp32(tiny_clip_dir, tmp_path, dtype):
    CLIPModel.from_pretrained(tiny_clip_dir).to(dtype).save_pretrained(tmp_path)
    assert CLIPModel.from_pretrained(tmp_path).dtype == dtype, "the case must be a half-precision one"
    loaded = RobustCLIPModel.from_pretrained(tmp_path)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert {p.dtype for p in RobustCLIPModel.from_pretrained(tmp_path, dtype=dtype).parameters()} == {dtype}
    loaded.to(dtype).save_pretrained(tmp_path / "again")
    assert CLIPModel.from_pretrained(tmp_path / "again").dtype == dtype


def test_only_the_main_process_writes(model, tmp_path):
    model.save_pretrained(tmp_path, is_main_process=False)
    assert not any(p.is_file() for p in tmp_path.rglob("*"))


def test_save_takes_a_gathered_state_dict(model, tmp_path):
    state = {k: torch.full_like(v, 0.5) for k, v in model.state_dict().items()}
    state["hier_head.curvature"] = torch.ones(())
    model.save_pretrained(tmp_path, state_dict=state)
    loaded = RobustCLIPModel.from_pretrained(tmp_path)
    assert loaded.hier_head.kappa == 0.5 and (loaded.logit_scale == 0.5).all()
    assert model.hier_head.kappa != 0.5


def test_push_passes_the_hub_options_on(model, tmp_path, monkeypatch):
    pushed = []
    monkeypatch.setattr(RobustCLIPModel, "push_to_hub", lambda self, repo, **kw: pushed.append((repo, kw)))
    model.save_pretrained(tmp_path / "name", push_to_hub=True, private=True, token="t", commit_message="m")
    model.save_pretrained(tmp_path / "name", push_to_hub=True, repo_id="me/model")
    assert pushed == [
        ("name", {"private": True, "token": "t", "commit_message": "m"}),
        ("me/model", {"token": None}),
    ]
    assert (tmp_path / "name" / SIDE_FILE).is_file()


def test_kind26_a_checkpoint_that_is_nowhere_is_named(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        FileNotFoundError, match="model_name_or_path='nobody/nothing' is no folder with a"
    ) as e:
        load_robust_model("nobody/nothing", local_files_only=True)
    assert "\n" not in str(e.value)
