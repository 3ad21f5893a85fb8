"""Adapters: where they sit, what they leave alone, merged and adapter checkpoints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from lora_models import BOTH, HIER, trained, with_lora
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, CLIPModel

from hf_hierrobust.adapters import adapters_off, add_lora, lora_config
from hf_hierrobust.adapters.fingerprints import fingerprints
from hf_hierrobust.adapters.lora import adapter_layers, merged_state
from hf_hierrobust.adapters.trainable import FrozenWeightsError, MovementCheck, set_trainable
from hf_hierrobust.modeling import CorruptSideFileError, RobustCLIPModel, RobustSiglipModel
from hf_hierrobust.modeling.side_files import ForeignCheckpointError, load_side_files

peft = pytest.importorskip("peft")


@pytest.fixture(scope="module")
def inputs(tiny_clip_dir) -> dict[str, torch.Tensor]:
    tokenizer = AutoProcessor.from_pretrained(tiny_clip_dir).tokenizer
    pixels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    text = tokenizer(["this is a photo of a cat", "oak"], padding=True, return_tensors="pt")
    return dict(text) | {"pixel_values": pixels}


@torch.no_grad()
def logits(model, inputs) -> torch.Tensor:
    return model.eval()(**inputs).logits_per_image


class TestPlacement:
    @pytest.mark.parametrize(
        ("groups", "towers", "prefixes"),
        [
            (("vision",), None, {"vision_model": 12}),
            (("text",), None, {"text_model": 24}),
            (("vision", "text"), None, {"vision_model": 12, "text_model": 24}),
            (("vision", "text"), ["vision"], {"vision_model": 12}),
        ],
    )
    def test_the_towers_follow_from_the_objective(self, tiny_clip_dir, groups, towers, prefixes):
        model = RobustCLIPModel.from_pretrained(tiny_clip_dir)
        layers = {name: len(getattr(model, name).encoder.layers) for name in prefixes}
        add_lora(model, lora_config(groups, towers=towers))
        found = [name.split(".")[0] for name in adapter_layers(model)]
        assert {name: found.count(name) for name in set(found)} == {n: 6 * k for n, k in layers.items()}

    def test_starts_as_the_base_and_from_its_seed(self, tiny_clip_dir, inputs):
        base = logits(CLIPModel.from_pretrained(tiny_clip_dir), inputs)
        state, models = torch.get_rng_state(), []
        for global_seed in (1, 2):
            torch.manual_seed(global_seed)
            before = torch.get_rng_state()
            models.append(RobustCLIPModel.from_pretrained(tiny_clip_dir))
            torch.set_rng_state(before)
            add_lora(models[-1], lora_config(BOTH), seed=5)
            assert torch.equal(torch.get_rng_state(), before)
        torch.set_rng_state(state)
        assert type(models[0]) is RobustCLIPModel
        assert torch.equal(logits(models[0], inputs), base)
        first, second = (fingerprints(dict(m.named_parameters())) for m in models)
        assert first == second
        other = RobustCLIPModel.from_pretrained(tiny_clip_dir)
        add_lora(other, lora_config(BOTH), seed=6)
        assert fingerprints(dict(other.named_parameters())) != first

    def test_groups_are_adapters(self, tiny_clip_dir):
        model = RobustCLIPModel.from_pretrained(tiny_clip_dir)
        add_lora(model, lora_config(HIER, r=4))
        counts = set_trainable(model, HIER)
        wide = {"self_attn": 4 * 4 * (32 + 32), "mlp": 2 * 4 * (32 + 128)}
        assert counts == {"vision": 2 * sum(wide.values()), "text_projection": 32 * 32, "hier_head": 2}
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        assert not any("base_layer" in name or "original_module" in name for name in trained)
        assert "text_projection.modules_to_save.default.weight" in trained
        assert not model.visual_projection.weight.requires_grad and not model.logit_scale.requires_grad
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == sum(counts.values())

    def test_the_projection_trains_on_request(self, tiny_clip_dir):
        model = RobustCLIPModel.from_pretrained(tiny_clip_dir)
        add_lora(model, lora_config(("vision",), train_projections=True))
        set_trainable(model, ["vision"])
        names = {name for name, p in model.named_parameters() if p.requires_grad}
        assert "visual_projection.modules_to_save.default.weight" in names

    def test_a_group_without_adapter_stays_frozen(self, tiny_clip_dir):
        model = RobustCLIPModel.from_pretrained(tiny_clip_dir)
        add_lora(model, lora_config(BOTH, towers=["vision"]))
        assert set_trainable(model, BOTH).keys() == {"vision", "text_projection"}
        assert not any(p.requires_grad for p in model.text_model.parameters())

    def test_adapters_that_no_group_trains_are_refused(self, tiny_clip_dir):
        model = RobustCLIPModel.from_pretrained(tiny_clip_dir)
        add_lora(model, peft.LoraConfig(r=2, target_modules=["q_proj"]))
        flags = [p.requires_grad for p in model.parameters()]
        with pytest.raises(ValueError, match=r"adapters of text_model\..* are of no group in \['vision'\]"):
            set_trainable(model, ["vision"])
        assert [p.requires_grad for p in model.parameters()] == flags


class TestAdaptersOff:
    def test_is_the_base_and_comes_back(self, tiny_clip_dir, inputs):
        model = trained(tiny_clip_dir)
        base = logits(CLIPModel.from_pretrained(tiny_clip_dir), inputs)
        adapted, flags = logits(model, inputs), [p.requires_grad for p in model.parameters()]
        with adapters_off(model), adapters_off(model):
            assert torch.equal(logits(model, inputs), base)
        assert (adapted - base).abs().max() > 0.1
        assert torch.equal(logits(model, inputs), adapted)
        assert [p.requires_grad for p in model.parameters()] == flags

    def test_comes_back_after_an_exception_inside_a_frozen_attack(self, tiny_clip_dir, inputs):
        model = trained(tiny_clip_dir)
        adapted = logits(model, inputs)
        model.requires_grad_(False)
        with pytest.raises(KeyError), adapters_off(model):
            raise KeyError
        assert torch.equal(logits(model, inputs), adapted)
        assert not any(p.requires_grad for p in model.parameters())


OWN = {
    "dora": {"target_modules": ["q_proj", "fc1"], "use_dora": True, "modules_to_save": ["text_projection"]},
    "projections": {"target_modules": ["v_proj", "visual_projection"], "use_rslora": True},
}


@pytest.fixture(scope="module", params=["hier", "both towers", *OWN])
def saved(request, tiny_clip_dir, tmp_path_factory):
    """A trained model and its checkpoint."""
    directory = tmp_path_factory.mktemp("lora")
    if request.param in OWN:
        config = peft.LoraConfig(r=2, **OWN[request.param])
        model = trained(tiny_clip_dir, BOTH, config)
    else:
        model = trained(tiny_clip_dir, HIER if request.param == "hier" else BOTH)
    before = fingerprints(model.state_dict())
    model.save_pretrained(directory)
    assert fingerprints(model.state_dict()) == before, "saving must not change the model"
    return model, directory


class TestCheckpoint:
    def test_the_root_is_the_merged_stock_model(self, saved, inputs, tiny_clip_dir):
        model, directory = saved
        stock, report = CLIPModel.from_pretrained(directory, output_loading_info=True)
        assert not any(report.values()), report
        expected = logits(model, inputs)
        assert torch.allclose(logits(stock, inputs), expected, rtol=0, atol=1e-5)
        assert (expected - logits(CLIPModel.from_pretrained(tiny_clip_dir), inputs)).abs().max() > 0.01
        names = {path.name for path in directory.iterdir()}
        assert not any(name.startswith("adapter_") for name in names) and "adapter" in names
        assert not list(directory.rglob("*.tmp"))

    def test_the_adapter_loads_on_the_stock_base(self, saved, inputs, tiny_clip_dir):
        model, directory = saved
        base = CLIPModel.from_pretrained(tiny_clip_dir)
        adapted = peft.PeftModel.from_pretrained(base, directory / "adapter")
        assert torch.allclose(logits(adapted, inputs), logits(model, inputs), rtol=0, atol=1e-5)
        with adapted.disable_adapter():
            stock = logits(CLIPModel.from_pretrained(tiny_clip_dir), inputs)
            assert torch.equal(logits(adapted, inputs), stock)

    def test_kind16_the_adapter_loads_by_its_own_config_and_holds_no_path(
        self, saved, inputs, tiny_clip_dir, monkeypatch
    ):
        model, directory = saved
        config = json.loads((directory / "adapter" / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == Path(tiny_clip_dir).name
        assert config["auto_mapping"] == {"base_model_class": "CLIPModel", "parent_library": "transformers"}
        for file in directory.rglob("*"):
            if file.is_file():
                assert str(Path(tiny_clip_dir).parent).encode() not in file.read_bytes(), file
        # On the Hub the name is an id; here it is the base's folder seen from beside it.
        monkeypatch.chdir(Path(tiny_clip_dir).parent)
        adapted = peft.AutoPeftModel.from_pretrained(str(directory / "adapter"))
        assert type(adapted.get_base_model()) is CLIPModel
        assert torch.allclose(logits(adapted, inputs), logits(model, inputs), rtol=0, atol=1e-5)

    def test_kind16_a_siglip_adapter_names_the_stock_class(self, tiny_siglip_dir, tmp_path):
        model = RobustSiglipModel.from_pretrained(tiny_siglip_dir)
        add_lora(model, lora_config(("vision",)))
        model.name_or_path = "google/siglip-base-patch16-224"
        model.save_pretrained(tmp_path)
        config = peft.PeftConfig.from_pretrained(tmp_path / "adapter")
        assert config.base_model_name_or_path == "google/siglip-base-patch16-224"
        assert config.auto_mapping["base_model_class"] == "SiglipModel"

    def test_ours_loads_merged_and_forgets_the_adapter(self, saved, inputs, tmp_path):
        model, directory = saved
        facts = json.loads((directory / "config.json").read_text())["hier_robust"]
        assert facts["adapter"]["peft_type"] == "LORA" and facts["adapter"]["r"] in (2, 4)
        loaded = RobustCLIPModel.from_pretrained(directory)
        assert not adapter_layers(loaded)
        assert torch.allclose(logits(loaded, inputs), logits(model, inputs), rtol=0, atol=1e-5)
        loaded.save_pretrained(tmp_path)
        assert "adapter" not in json.loads((tmp_path / "config.json").read_text())["hier_robust"]
        assert not (tmp_path / "adapter").exists()


@pytest.fixture(scope="module")
def checkpoint(tiny_clip_dir, tmp_path_factory):
    directory = tmp_path_factory.mktemp("resume")
    model = trained(tiny_clip_dir)
    with torch.no_grad():
        model.hier_head.log_text_scale.fill_(0.3)
    model.save_pretrained(directory)
    return model, directory


class TestResume:
    def test_brings_adapter_and_head_back_bit_by_bit(self, checkpoint, tiny_clip_dir):
        model, directory = checkpoint
        fresh = with_lora(tiny_clip_dir)
        load_side_files(fresh, directory)
        expected = model.state_dict()
        assert fingerprints(fresh.state_dict()) == fingerprints(expected)

    def test_another_base_is_refused(self, checkpoint, tmp_path):
        from tiny_data import make_tiny_clip

        fresh = with_lora(make_tiny_clip(tmp_path, seed=1))
        with pytest.raises(ForeignCheckpointError, match="resume with the model_name_or_path"):
            load_side_files(fresh, checkpoint[1])

    @pytest.mark.parametrize("damage", ["cut", "gone", "lacks", "shape", "foreign"])
    def test_a_corrupt_adapter(self, damage, checkpoint, tiny_clip_dir, tmp_path):
        shutil.copytree(checkpoint[1], tmp_path, dirs_exist_ok=True)
        path = tmp_path / "adapter" / "adapter_model.safetensors"
        state = load_file(path)
        key = next(iter(state))
        if damage == "cut":
            path.write_bytes(path.read_bytes()[:-5])
        elif damage == "gone":
            path.unlink()
        elif damage == "lacks":
            save_file({k: v for k, v in state.items() if k != key}, path)
        elif damage == "shape":
            save_file(state | {key: state[key][:1].contiguous()}, path)
        else:
            save_file(state | {"base_model.model.other.weight": torch.ones(1)}, path)
        with pytest.raises(
            CorruptSideFileError, match=r"(?s)adapter_model.safetensors is corrupt \(.+\): resume"
        ):
            load_side_files(with_lora(tiny_clip_dir), tmp_path)


def test_merging_a_half_precision_model_rounds_once(tiny_clip_dir):
    model = trained(tiny_clip_dir, ("vision",)).to(torch.bfloat16)
    name, layer = next(iter(adapter_layers(model).items()))
    a, b = layer.lora_A["default"].weight.float(), layer.lora_B["default"].weight.float()
    expected = (layer.base_layer.weight.float() + layer.scaling["default"] * b @ a).bfloat16()
    merged = merged_state(model, model.state_dict())[f"{name}.weight"]
    assert merged.dtype == torch.bfloat16 and torch.equal(merged, expected)


class TestMovementCheck:
    def step(self, model, change) -> None:
        check = MovementCheck(model)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad and "lora_A" not in name:  # which waits for B to leave zero
                    parameter -= 1e-6
            change(model)
        check.verify()

    def test_a_right_step_passes(self, tiny_clip_dir):
        self.step(with_lora(tiny_clip_dir), lambda model: None)

    def test_a_moved_base_weight(self, tiny_clip_dir):
        def nudge(model):
            model.vision_model.encoder.layers[1].mlp.fc1.base_layer.weight[3, 4] += 1e-6

        with pytest.raises(FrozenWeightsError, match=r"1 frozen weights moved.*layers.1.mlp.fc1.base_layer"):
            self.step(with_lora(tiny_clip_dir), nudge)

    def test_an_adapter_standing_still(self, tiny_clip_dir):
        def undo(model):
            model.vision_model.encoder.layers[0].self_attn.q_proj.lora_B["default"].weight.zero_()

        with pytest.raises(FrozenWeightsError, match=r"1 of 13 adapters did not move.*layers.0.self_attn.q_"):
            self.step(with_lora(tiny_clip_dir), undo)
