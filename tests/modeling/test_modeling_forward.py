"""RobustCLIPModel's forward: stock outputs, features, tangents, and cached text states."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoProcessor, CLIPModel

from hf_hierrobust.adapters import add_visual_prompt
from hf_hierrobust.modeling import (
    PixelPipeline,
    RobustCLIPModel,
    TextEncoder,
    encode_prompts,
    load_robust_model,
    text_inputs,
)

PROMPTS = ["this is a photo of a cat", "oak", "this is a photo of a rose animal"]


@pytest.fixture(scope="module")
def tokenizer(tiny_clip_dir):
    return AutoProcessor.from_pretrained(tiny_clip_dir).tokenizer


@pytest.fixture(scope="module")
def inputs(tokenizer) -> dict[str, torch.Tensor]:
    pixels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return dict(tokenizer(PROMPTS, padding=True, return_tensors="pt")) | {"pixel_values": pixels}


@pytest.fixture(scope="module")
def model(tiny_clip_dir) -> RobustCLIPModel:
    model = RobustCLIPModel.from_pretrained(tiny_clip_dir).eval()
    with torch.no_grad():
        model.hier_head.log_text_scale.fill_(0.3)
    return model


class TestForward:
    def test_is_the_stock_forward_with_features_and_tangents(self, model, inputs, tiny_clip_dir):
        stock = CLIPModel.from_pretrained(tiny_clip_dir).eval()
        with torch.no_grad():
            found, expected = model(**inputs), stock(**inputs)
            images = stock.get_image_features(pixel_values=inputs["pixel_values"]).pooler_output
        for key in ("logits_per_image", "logits_per_text", "image_embeds", "text_embeds"):
            assert torch.equal(found[key], expected[key])
        assert torch.equal(found.image_features, images)
        assert (found.image_features.norm(dim=1) - 1).abs().min() > 0.05, "must not be normalised"
        assert torch.allclose(
            found.text_features / found.text_features.norm(dim=1, keepdim=True), found.text_embeds, atol=1e-6
        )
        head = model.hier_head
        assert torch.allclose(found.image_tangent, head.log_image_scale.exp() * found.image_features)
        assert torch.allclose(found.text_tangent, head.log_text_scale.exp() * found.text_features)
        assert head.log_image_scale != head.log_text_scale

    @pytest.mark.parametrize("cached", [False, True])
    def test_kind15_return_dict_false_gives_a_tuple(self, model, inputs, tokenizer, cached):
        if cached:
            states = encode_prompts(model, tokenizer, PROMPTS)
            inputs = {"pixel_values": inputs["pixel_values"], "text_states": states}
        with torch.no_grad():
            named, found = model(**inputs), model(**inputs, return_dict=False)
        assert isinstance(found, tuple) and len(found) == len(named.to_tuple())
        tensors = [(a, b) for a, b in zip(found, named.to_tuple()) if isinstance(a, torch.Tensor)]
        assert len(tensors) == 9 and all(torch.equal(a, b) for a, b in tensors)

    @pytest.mark.parametrize("family", ["clip", "siglip"])
    def test_kind15_a_config_that_turns_names_off_is_no_obstacle(
        self, family, tiny_clip_dir, tiny_siglip_dir, tmp_path
    ):
        directory = {"clip": tiny_clip_dir, "siglip": tiny_siglip_dir}[family]
        model = load_robust_model(directory, return_dict=False).eval()
        tokenizer = AutoProcessor.from_pretrained(directory).tokenizer
        pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        states = encode_prompts(model, tokenizer, PROMPTS)
        with torch.no_grad():
            out = model(pixel_values=pixels, text_states=states, patches=True)
            assert torch.equal(model.encode_image(pixels), out.image_features)
            whole = model(pixel_values=pixels, **text_inputs(model, tokenizer, PROMPTS))
            assert torch.equal(whole.image_features, out.image_features)
            assert TextEncoder(model, tokenizer)(PROMPTS).shape == out.text_features.shape
        with pytest.raises(ValueError, match="return_loss=True needs input_ids"):
            model(pixel_values=pixels, text_states=states, return_loss=True)

    def test_cached_text_states_stand_in_for_the_text_tower(self, model, inputs, tokenizer):
        states = encode_prompts(model, tokenizer, PROMPTS)
        assert states.shape == (3, 32) and not states.requires_grad
        with torch.no_grad():
            cached = model(pixel_values=inputs["pixel_values"], text_states=states)
            expected = model(**inputs)
        assert cached.keys() == expected.keys() - {"text_model_output", "vision_model_output"}
        for key, value in cached.items():
            assert torch.allclose(value, expected[key], atol=1e-5), key

    def test_text_projection_and_tangent_scales_train_through_cached_states(self, model, inputs, tokenizer):
        states = encode_prompts(model, tokenizer, PROMPTS)
        out = model(pixel_values=inputs["pixel_values"], text_states=states)
        trained = [
            model.text_projection.weight,
            model.hier_head.log_text_scale,
            model.hier_head.log_image_scale,
        ]
        gradients = torch.autograd.grad(out.text_tangent.sum() + out.image_tangent.sum(), trained)
        assert all(g.abs().sum() > 0 for g in gradients)


def test_kind15_the_default_dtype_does_not_reach_the_model(tiny_clip_dir):
    torch.set_default_dtype(torch.float64)
    try:
        model, processor = (
            load_robust_model(tiny_clip_dir).eval(),
            AutoProcessor.from_pretrained(tiny_clip_dir),
        )
        add_visual_prompt(model, tokens=2, border=1)
        pixels = PixelPipeline(processor.image_processor)(torch.rand(2, 3, 40, 48))
        states = encode_prompts(model, processor.tokenizer, PROMPTS)
        with torch.no_grad():
            out = model(pixel_values=pixels, text_states=states)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {p.dtype for p in model.parameters()} == {torch.float32} == {out.image_tangent.dtype, pixels.dtype}
