"""SigLIP checkpoints: stock transformers reads ours, we read stock ones, and each family has its class."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, BertConfig, CLIPModel, Siglip2Config, SiglipModel

from hf_hierrobust.adapters import add_lora, add_visual_prompt, lora_config
from hf_hierrobust.adapters.fingerprints import fingerprints
from hf_hierrobust.adapters.lora import adapter_layers, adapter_parameters
from hf_hierrobust.adapters.trainable import set_trainable
from hf_hierrobust.hub.push import check_folder
from hf_hierrobust.modeling import (
    CorruptSideFileError,
    RobustCLIPModel,
    RobustSiglipModel,
    load_robust_model,
    text_inputs,
)
from hf_hierrobust.modeling.encoders import FAMILIES
from hf_hierrobust.modeling.hier_head import HierHead
from hf_hierrobust.modeling.reference import ReferenceModel
from hf_hierrobust.modeling.side_files import load_side_files
from hf_hierrobust.modeling.sources import MODEL_TYPES

PROMPTS = ["this is a photo of a cat", "oak", "this is a photo of a rose animal"]
HIER = ("vision", "text_projection", "hier_head")
BOTH = ("vision", "text", "text_projection")


@pytest.fixture(scope="module")
def inputs(tiny_siglip_dir) -> dict[str, torch.Tensor]:
    tokenizer = AutoProcessor.from_pretrained(tiny_siglip_dir).tokenizer
    pixels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return text_inputs(SiglipModel.from_pretrained(tiny_siglip_dir), tokenizer, PROMPTS) | {
        "pixel_values": pixels
    }


def disturbed(model, scale: float = 0.1):
    """Every number that trains away from the stock value."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += scale * torch.randn(parameter.shape, generator=generator)
    return model.eval()


@torch.no_grad()
def logits(model, inputs) -> torch.Tensor:
    return model.eval()(**inputs).logits_per_image


@pytest.fixture(scope="module")
def model(tiny_siglip_dir) -> RobustSiglipModel:
    model = disturbed(load_robust_model(tiny_siglip_dir))
    with torch.no_grad():
        model.hier_head.kappa.fill_(3.0)
        model.hier_head.vic_radius.fill_(0.7)
    return model


@pytest.fixture(scope="module")
def saved(model, tiny_siglip_dir, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("siglip")
    model.save_pretrained(directory)
    AutoProcessor.from_pretrained(tiny_siglip_dir).save_pretrained(directory)
    return directory


STOCK_ONLY = """
import json, sys
sys.modules["hf_hierrobust"] = None  # as if the package had never existed
from safetensors.torch import load_file
from PIL import Image
from transformers import AutoModel, SiglipModel, pipeline

ours, inputs, found = sys.argv[1], load_file(sys.argv[2]), {}
for cls in (AutoModel, SiglipModel):
    model, info = cls.from_pretrained(ours, output_loading_info=True)
    report = {key: sorted(map(str, value)) for key, value in info.items()}
    found[cls.__name__] = [type(model).__name__, model.eval()(**inputs).logits_per_image.tolist(), report]
pipe = pipeline("zero-shot-image-classification", model=ours)
image = Image.radial_gradient("L").resize((32, 32)).convert("RGB")
scores = pipe(image, candidate_labels=["cat", "oak", "rose"], hypothesis_template="{}")
found["pipeline"] = {s["label"]: s["score"] for s in scores}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def stock(saved, inputs, tmp_path_factory) -> tuple[dict, str]:
    """What stock transformers makes of the checkpoint in a process without this package, and its output."""
    work = tmp_path_factory.mktemp("stock")
    save_file(inputs, work / "inputs.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", STOCK_ONLY, str(saved), str(work / "inputs.safetensors")],
        capture_output=True,
        text=True,
        cwd=work,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


class TestStockTransformers:
    def test_loads_with_an_empty_report_and_our_logits(self, stock, model, inputs):
        found, output = stock
        for name in ("AutoModel", "SiglipModel"):
            kind, values, report = found[name]
            assert kind == "SiglipModel" and not any(report.values()), report
            assert torch.allclose(torch.tensor(values), logits(model, inputs), rtol=0, atol=1e-5)
        for word in ("UNEXPECTED", "MISSING", "MISMATCH", "hier_head"):
            assert word not in output

    def test_zero_shot_pipeline(self, stock, model, saved):
        from PIL import Image

        processor = AutoProcessor.from_pretrained(saved)
        image = Image.radial_gradient("L").resize((32, 32)).convert("RGB")
        pixel_values = processor(images=image, return_tensors="pt")["pixel_values"]
        tokens = text_inputs(model, processor.tokenizer, ["cat", "oak", "rose"])
        expected = logits(model, tokens | {"pixel_values": pixel_values}).sigmoid()[0]
        scores = stock[0]["pipeline"]
        assert [scores[n] for n in ("cat", "oak", "rose")] == pytest.approx(expected.tolist(), rel=1e-4)


def test_checkpoint_names_the_stock_class_and_holds_no_head(saved, model):
    config = json.loads((saved / "config.json").read_text())
    assert config["architectures"] == ["SiglipModel"] and config["model_type"] == "siglip"
    assert config["hier_robust"].keys() == {"text_levels", *HierHead.CONSTANTS}
    keys = load_file(saved / "model.safetensors").keys()
    assert {"logit_bias", "text_model.head.weight"} < keys and not any("hier" in key for key in keys)
    (saved / "README.md").touch()
    check_folder(saved)


def test_reload_is_bit_equal(saved, model):
    loaded, info = load_robust_model(saved, output_loading_info=True)
    assert type(loaded) is RobustSiglipModel and not any(info.values())
    assert fingerprints(loaded.state_dict()) == fingerprints(model.state_dict())
    assert not load_robust_model(saved, hier_head=False).hier_head.calibrated


def test_half_precision_loads_in_fp32(tiny_siglip_dir, tmp_path):
    SiglipModel.from_pretrained(tiny_siglip_dir).to(torch.bfloat16).save_pretrained(tmp_path)
    assert {p.dtype for p in load_robust_model(tmp_path).parameters()} == {torch.float32}
    loaded = load_robust_model(tmp_path, dtype=torch.bfloat16)
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}


def test_a_visual_prompt_has_its_own_file(tiny_siglip_dir, inputs, tmp_path):
    model = load_robust_model(tiny_siglip_dir)
    add_visual_prompt(model, tokens=3, border=2)
    model.save_pretrained(tmp_path)
    assert torch.allclose(logits(load_robust_model(tmp_path), inputs), logits(model, inputs), atol=1e-5)
    _, report = SiglipModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    bare = load_robust_model(tmp_path, visual_prompt=False)
    base = logits(SiglipModel.from_pretrained(tiny_siglip_dir), inputs)
    assert torch.allclose(logits(bare, inputs), base, atol=1e-5)
    assert not torch.allclose(logits(model, inputs), base, atol=1e-3)


def test_a_corrupt_side_file_names_the_classes_of_the_family(saved, tmp_path):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    (tmp_path / "hier_head.safetensors").write_bytes(b"")
    with pytest.raises(CorruptSideFileError, match=r"SiglipModel\.from_pretrained.*RobustSiglipModel\.from"):
        load_robust_model(tmp_path)


class TestFamilies:
    def test_each_checkpoint_gets_its_class(self, tiny_clip_dir, tiny_siglip_dir):
        assert type(load_robust_model(tiny_clip_dir)) is RobustCLIPModel
        assert type(load_robust_model(tiny_siglip_dir)) is RobustSiglipModel
        assert {cls.config_class.model_type: cls for cls in FAMILIES.values()} == FAMILIES
        assert set(FAMILIES) == set(MODEL_TYPES)
        assert [cls.stock_class for cls in FAMILIES.values()] == [CLIPModel, SiglipModel]

    @pytest.mark.parametrize(
        ("cls", "found"), [(RobustCLIPModel, "siglip"), (RobustSiglipModel, "clip")], ids=["clip", "siglip"]
    )
    def test_the_other_familys_class_is_refused(self, cls, found, tiny_clip_dir, tiny_siglip_dir):
        folder = tiny_siglip_dir if found == "siglip" else tiny_clip_dir
        message = rf"is a '{found}' checkpoint, which is not for {cls.__name__}: .*load_robust_model"
        with pytest.raises(ValueError, match=message):
            cls.from_pretrained(folder)

    @pytest.mark.parametrize("config", [BertConfig(), Siglip2Config()], ids=lambda c: c.model_type)
    def test_other_models_are_refused(self, config, tmp_path):
        config.save_pretrained(tmp_path)
        for load in (load_robust_model, RobustCLIPModel.from_pretrained, RobustSiglipModel.from_pretrained):
            with pytest.raises(
                ValueError, match=rf"is a '{config.model_type}' checkpoint, not a dual encoder"
            ):
                load(tmp_path)


@pytest.fixture(scope="module", params=[HIER, BOTH], ids=["hier", "both towers"])
def adapted(request, tiny_siglip_dir, tmp_path_factory):
    pytest.importorskip("peft")
    model = load_robust_model(tiny_siglip_dir)
    add_lora(model, lora_config(request.param, r=4), seed=3)
    counts = set_trainable(model, request.param)
    disturbed(model)
    directory = tmp_path_factory.mktemp("lora")
    model.save_pretrained(directory)
    return model, directory, counts, request.param


class TestLoRA:
    def test_the_text_head_trains_in_full_beside_the_adapters(self, adapted):
        model, _, counts, groups = adapted
        towers = 2 if "text" in groups else 1
        assert len(adapter_layers(model)) == towers * 2 * 6 + 1
        assert counts["text_projection"] == 32 * 32 + 32
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        assert "text_model.head.modules_to_save.default.weight" in trained
        assert not any(p.requires_grad for p in model.vision_model.head.parameters())

    def test_merged_and_adapter_checkpoints(self, adapted, tiny_siglip_dir, inputs):
        import peft

        model, directory, *_ = adapted
        expected = logits(model, inputs)
        stock, report = SiglipModel.from_pretrained(directory, output_loading_info=True)
        assert not any(report.values()), report
        assert torch.allclose(logits(stock, inputs), expected, rtol=0, atol=2e-5)
        base = SiglipModel.from_pretrained(tiny_siglip_dir)
        assert (expected - logits(base, inputs)).abs().max() > 0.01
        again = peft.PeftModel.from_pretrained(base, directory / "adapter")
        assert torch.allclose(logits(again, inputs), expected, rtol=0, atol=2e-5)

    def test_resume_is_bit_equal(self, adapted, tiny_siglip_dir):
        model, directory, _, groups = adapted
        fresh = load_robust_model(tiny_siglip_dir)
        add_lora(fresh, lora_config(groups, r=4), seed=4)
        load_side_files(fresh, directory)
        assert fingerprints(fresh.state_dict()) == fingerprints(model.state_dict())

    def test_the_shared_reference_is_the_stock_model(self, adapted, tiny_siglip_dir, inputs):
        model, *_ = adapted
        reference = ReferenceModel(model)
        assert reference.shared
        stock = SiglipModel.from_pretrained(tiny_siglip_dir).eval()
        with torch.no_grad():
            expected = stock.get_image_features(inputs["pixel_values"]).pooler_output
        assert torch.allclose(reference(inputs["pixel_values"])[0], expected, atol=1e-6)

    def test_the_pooling_trains_on_request(self, tiny_siglip_dir):
        pytest.importorskip("peft")
        model = load_robust_model(tiny_siglip_dir)
        config = lora_config(("vision",), train_projections=True)
        add_lora(model, config)
        set_trainable(model, ["vision"])
        assert "vision_model.head" in adapter_parameters(model)
        assert model.vision_model.head.modules_to_save["default"].probe.requires_grad
        assert config.modules_to_save == ["visual_projection"], "the caller's configuration is left alone"
