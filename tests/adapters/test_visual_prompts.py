"""Visual prompts: what they add to the image, that nothing else changes, and how they are stored."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPModel

from hf_hierrobust.adapters import VisualPrompts, add_visual_prompt
from hf_hierrobust.adapters.trainable import set_trainable
from hf_hierrobust.adapters.visual_prompts import remove_visual_prompt, visual_prompt_off
from hf_hierrobust.modeling import CorruptSideFileError, RobustCLIPModel

PROMPT_FILE = "visual_prompt.safetensors"
SIZES = [{"tokens": 3, "border": 0}, {"tokens": 0, "border": 2}, {"tokens": 3, "border": 2}]


@pytest.fixture(scope="module")
def pixel_values() -> torch.Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def base(tiny_clip_dir) -> CLIPModel:
    return CLIPModel.from_pretrained(tiny_clip_dir).eval()


def prompted(directory, **options) -> RobustCLIPModel:
    model = RobustCLIPModel.from_pretrained(directory).eval()
    add_visual_prompt(model, **options)
    return model


@torch.no_grad()
def embed(model, pixel_values) -> torch.Tensor:
    return model.get_image_features(pixel_values=pixel_values).pooler_output


class TestEffect:
    @torch.no_grad()
    @pytest.mark.parametrize("sizes", SIZES)
    def test_equals_the_tower_run_by_hand(self, sizes, tiny_clip_dir, base, pixel_values):
        model = prompted(tiny_clip_dir, **sizes)
        prompt, vision, images = model.visual_prompt, base.vision_model, pixel_values.clone()
        if sizes["border"]:
            top, bottom = prompt.rows
            left, right = prompt.columns
            images[:, :, :2] += top
            images[:, :, -2:] += bottom
            images[:, :, 2:-2, :2] += left
            images[:, :, 2:-2, -2:] += right
        hidden = vision.embeddings(images)
        if sizes["tokens"]:  # at the end of the sequence: a prompt token has no position
            hidden = torch.cat([hidden, prompt.tokens.expand(4, -1, -1)], dim=1)
        hidden = vision.encoder(inputs_embeds=vision.pre_layrnorm(hidden)).last_hidden_state[:, :17]
        expected = base.visual_projection(vision.post_layernorm(hidden))
        features, patches = model.encode_patches(pixel_values)
        assert torch.allclose(features, expected[:, 0], atol=1e-5)
        assert patches.shape == (4, 16, 32) and torch.allclose(patches, expected[:, 1:], atol=1e-5)
        assert torch.equal(model.encode_image(pixel_values), features)
        assert (features - embed(base, pixel_values)).abs().max() > 0.01

    def test_the_initial_values_follow_from_the_seed(self, tiny_clip_dir, pixel_values):
        before = torch.get_rng_state()
        state = [prompted(tiny_clip_dir, tokens=3, seed=s).visual_prompt.tokens for s in (1, 1, 2)]
        assert torch.equal(state[0], state[1]) and not torch.equal(state[0], state[2])
        assert abs(float(state[0].detach().std()) - 1) < 0.2
        after = torch.get_rng_state()
        torch.set_rng_state(before)
        for _ in range(3):
            RobustCLIPModel.from_pretrained(tiny_clip_dir)
        assert torch.equal(torch.get_rng_state(), after), "the prompt must draw nothing from the global state"

    def test_a_border_can_start_without_effect(self, tiny_clip_dir, base, pixel_values):
        model = prompted(tiny_clip_dir, tokens=0, border=2, init_std=0.0)
        assert torch.equal(embed(model, pixel_values), embed(base, pixel_values))

    def test_the_attacker_sees_through_the_prompt(self, tiny_clip_dir, pixel_values):
        model = prompted(tiny_clip_dir, tokens=3, border=2)
        images = pixel_values.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model.encode_image(images).square().sum(), images)
        assert gradient[:, :, 0].abs().sum() > 0 and gradient[:, :, 16].abs().sum() > 0

    def test_off_is_the_base_also_after_an_exception(self, tiny_clip_dir, base, pixel_values):
        model = prompted(tiny_clip_dir, tokens=3, border=2)
        on = embed(model, pixel_values)
        with pytest.raises(KeyError), visual_prompt_off(model), visual_prompt_off(model):
            assert torch.equal(embed(model, pixel_values), embed(base, pixel_values))
            raise KeyError
        assert torch.equal(embed(model, pixel_values), on)
        remove_visual_prompt(model)
        assert torch.equal(embed(model, pixel_values), embed(base, pixel_values))
        add_visual_prompt(model, tokens=3, border=2)
        assert torch.equal(embed(model, pixel_values), on)


class TestTraining:
    def test_only_the_prompt_trains_in_place_of_the_tower(self, tiny_clip_dir, pixel_values):
        model = prompted(tiny_clip_dir, tokens=3, border=2)
        counts = set_trainable(model, ["vision", "hier_head"])
        assert counts == {"visual_prompt": 3 * 32 + 3 * (32 * 32 - 28 * 28), "hier_head": 2}
        model(pixel_values=pixel_values, text_states=torch.randn(2, 32)).logits_per_image.sum().backward()
        moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        assert moved == {"visual_prompt.tokens", "visual_prompt.rows", "visual_prompt.columns"}

    def test_the_tower_trains_too_when_both_are_named(self, tiny_clip_dir):
        model = prompted(tiny_clip_dir, tokens=3)
        assert set_trainable(model, ["vision", "visual_prompt"])["vision"] > 10_000
        remove_visual_prompt(model)
        with pytest.raises(ValueError, match=r"no parameters of the groups \['visual_prompt'\]"):
            set_trainable(model, ["visual_prompt"])

    def test_with_adapters_both_train(self, tiny_clip_dir):
        pytest.importorskip("peft")
        from hf_hierrobust.adapters import add_lora, lora_config

        model = prompted(tiny_clip_dir, tokens=3)
        add_lora(model, lora_config(["vision"]))
        assert set_trainable(model, ["vision"]).keys() == {"vision", "visual_prompt"}
        assert not model.vision_model.embeddings.patch_embedding.weight.requires_grad


@pytest.fixture(scope="module", params=SIZES, ids=["tokens", "border", "both"])
def saved(request, tiny_clip_dir, tmp_path_factory):
    directory = tmp_path_factory.mktemp("prompt")
    model = prompted(tiny_clip_dir, **request.param)
    model.save_pretrained(directory)
    return model, directory


class TestCheckpoint:
    def test_stock_transformers_loads_the_base(self, saved, base, pixel_values):
        model, directory = saved
        stock, report = CLIPModel.from_pretrained(directory, output_loading_info=True)
        assert not any(report.values()), report
        assert torch.equal(embed(stock.eval(), pixel_values), embed(base, pixel_values))
        assert not any("prompt" in key for key in load_file(directory / "model.safetensors"))
        facts = json.loads((directory / "config.json").read_text())["hier_robust"]["visual_prompt"]
        assert facts == model.visual_prompt.facts()

    def test_ours_loads_the_prompt(self, saved, base, pixel_values, tmp_path):
        model, directory = saved
        loaded, report = RobustCLIPModel.from_pretrained(directory, output_loading_info=True)
        assert not any(report.values()), report
        assert torch.equal(embed(loaded.eval(), pixel_values), embed(model, pixel_values))
        without = RobustCLIPModel.from_pretrained(directory, visual_prompt=False).eval()
        assert torch.equal(embed(without, pixel_values), embed(base, pixel_values))
        without.save_pretrained(tmp_path)
        assert "visual_prompt" not in json.loads((tmp_path / "config.json").read_text())["hier_robust"]
        assert not (tmp_path / PROMPT_FILE).exists()

    @pytest.mark.parametrize("damage", ["cut", "empty", "gone", "lacks", "shape"])
    def test_a_corrupt_file(self, damage, saved, base, pixel_values, tmp_path):
        shutil.copytree(saved[1], tmp_path, dirs_exist_ok=True)
        path = tmp_path / PROMPT_FILE
        state = load_file(path)
        key = next(iter(state))
        if damage == "cut":
            path.write_bytes(path.read_bytes()[:-5])
        elif damage == "empty":
            path.write_bytes(b"")
        elif damage == "gone":
            path.unlink()
        elif damage == "lacks":
            save_file({"other": torch.ones(1)}, path)
        else:
            save_file(state | {key: state[key][:1].contiguous()}, path)
        with pytest.raises(CorruptSideFileError, match=r"(?s)is corrupt \(.+\)\. The CLIP weights") as caught:
            RobustCLIPModel.from_pretrained(tmp_path)
        assert "visual_prompt=False" in str(caught.value) and PROMPT_FILE in str(caught.value)
        loaded = RobustCLIPModel.from_pretrained(tmp_path, visual_prompt=False).eval()
        assert torch.equal(embed(loaded, pixel_values), embed(base, pixel_values))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"tokens": 0, "border": 0}, "tokens > 0, border > 0 or both"),
        ({"tokens": -1}, "tokens=-1"),
        ({"tokens": 2.0}, "tokens=2.0"),
        ({"tokens": True}, "tokens=True"),
        ({"border": 16}, "border=16 covers all of 32x32"),
    ],
)
def test_bad_sizes(sizes, message, base):
    with pytest.raises(ValueError, match=message):
        VisualPrompts(base.config.vision_config, **sizes)


def test_two_prompts_are_refused(tiny_clip_dir):
    model = prompted(tiny_clip_dir, tokens=3)
    with pytest.raises(ValueError, match="a visual prompt already"):
        add_visual_prompt(model, tokens=3)


def test_a_border_needs_its_resolution(tiny_clip_dir, pixel_values):
    model = prompted(tiny_clip_dir, tokens=0, border=2)
    with pytest.raises(ValueError, match=r"shape \(4, 3, 16, 16\) but .* made for \(3, 32, 32\)"):
        model.encode_image(pixel_values[..., :16, :16])
