"""The frozen original: equal to the stock model under every way of training, and never touched."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import AutoProcessor, CLIPModel

from hf_hierrobust.adapters import add_lora, add_visual_prompt, lora_config
from hf_hierrobust.adapters.trainable import set_trainable
from hf_hierrobust.modeling import ReferenceModel, RobustCLIPModel, encode_prompts
from hf_hierrobust.modeling.reference import ReferenceChangedError

GROUPS = ("vision", "text_projection", "hier_head")
PROMPTS = ["this is a photo of a cat", "oak", "rose"]


@pytest.fixture(scope="module")
def pixel_values() -> torch.Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def tokenizer(tiny_clip_dir):
    return AutoProcessor.from_pretrained(tiny_clip_dir).tokenizer


@pytest.fixture(scope="module")
def stock(tiny_clip_dir, tokenizer, pixel_values) -> dict[str, torch.Tensor]:
    """What stock transformers computes, by hand for the patches."""
    model = CLIPModel.from_pretrained(tiny_clip_dir).eval()
    with torch.no_grad():
        vision = model.vision_model(pixel_values=pixel_values)
        tokens = model.vision_model.post_layernorm(vision.last_hidden_state)
        text = tokenizer(PROMPTS, padding=True, return_tensors="pt")
        return {
            "image": model.visual_projection(vision.pooler_output),
            "patches": model.visual_projection(tokens)[:, 1:],
            "text": model.get_text_features(**text).pooler_output,
            "scale": model.logit_scale.exp(),
        }


def make(directory, kind: str) -> RobustCLIPModel:
    model = RobustCLIPModel.from_pretrained(directory)
    if "lora" in kind:
        pytest.importorskip("peft")
        add_lora(model, lora_config(GROUPS, dropout=0.5))
    if "prompt" in kind:
        add_visual_prompt(model, tokens=3, border=2)
    set_trainable(model, GROUPS)
    return model.train()


def train(model) -> None:
    """Move everything that may move."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1


KINDS = ["full", "lora", "prompt", "lora+prompt"]


@pytest.mark.parametrize("kind", KINDS)
def test_is_the_stock_model_before_and_after_training(kind, tiny_clip_dir, tokenizer, pixel_values, stock):
    model = make(tiny_clip_dir, kind)
    reference = ReferenceModel(model, encode_prompts(model, tokenizer, PROMPTS))
    assert reference.shared == (kind != "full")
    train(model)
    images = pixel_values.clone().requires_grad_()
    features, patches = reference(images, patches=True)
    assert features.shape == (4, 32) and patches.shape == (4, 16, 32)
    assert torch.equal(features, stock["image"]) and torch.equal(patches, stock["patches"])
    assert reference(images)[1] is None and torch.equal(reference(images)[0], stock["image"])
    assert torch.allclose(reference.text_features, stock["text"], atol=1e-5)
    assert torch.equal(reference.logit_scale, stock["scale"])
    outcome = (features, patches, reference.text_features, reference.logit_scale)
    assert not any(tensor.requires_grad for tensor in outcome)
    reference.assert_unchanged()
    with torch.no_grad():
        own, own_patches = model.eval().encode_patches(pixel_values)
    assert (own - stock["image"]).abs().max() > 0.01 and own_patches.shape == patches.shape


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fails", [False, True])
def test_leaves_the_trained_model_as_it_was(kind, fails, tiny_clip_dir, pixel_values):
    model = make(tiny_clip_dir, kind)
    reference = ReferenceModel(model)
    model.text_model.eval()  # a mix of modes must come back as a mix
    train(model)
    with torch.no_grad():
        before = model.encode_image(pixel_values) if "lora" not in kind else None
    flags = [p.requires_grad for p in model.parameters()]
    modes = [m.training for m in model.modules()]
    if fails:
        with pytest.raises(ValueError, match="Input image size"):
            reference(pixel_values[..., :16])
    else:
        reference(pixel_values, patches=True)
    assert [p.requires_grad for p in model.parameters()] == flags and any(flags)
    assert [m.training for m in model.modules()] == modes
    assert all(p.grad is None for p in model.parameters())
    if before is not None:
        assert torch.equal(model.encode_image(pixel_values), before)
    else:
        first, second = (model.encode_image(pixel_values) for _ in range(2))
        assert not torch.equal(first, second), "dropout of the adapters must be on again"


def test_gradients_of_a_forward_around_it_are_right(tiny_clip_dir, pixel_values):
    """Called between the training forward and its backward."""
    pytest.importorskip("peft")
    gradients = []
    for interrupt in (False, True):
        model = make(tiny_clip_dir, "lora+prompt").eval()
        train(model)
        reference, loss = ReferenceModel(model), model.encode_image(pixel_values).square().sum()
        if interrupt:
            reference(pixel_values)
        loss.backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) > 20 and all(torch.equal(a, b) for a, b in zip(*gradients))


def test_the_copy_is_independent_and_has_no_text_tower(tiny_clip_dir, pixel_values):
    model = make(tiny_clip_dir, "full")
    reference = ReferenceModel(model)
    own = {p.data_ptr() for p in model.parameters()}
    copied = dict(reference.model.named_parameters())
    assert not own & {p.data_ptr() for p in copied.values()}
    assert not any(name.startswith("text_model") for name in copied)
    assert not any(p.requires_grad for p in copied.values())
    model.set_attn_implementation("eager")
    assert reference.model.vision_model.config._attn_implementation == "eager", "kernels follow the model"
    model.set_attn_implementation("sdpa")


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_on_demand(kind, tiny_clip_dir, pixel_values, stock):
    model = make(tiny_clip_dir, kind)
    train(model)
    reference = ReferenceModel(model, shared=False)
    if kind != "full":
        assert torch.equal(reference(pixel_values)[0], stock["image"])
    assert not reference.shared
    expected = reference(pixel_values)[0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1
    assert torch.equal(reference(pixel_values)[0], expected)
    reference.assert_unchanged()


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_weight_is_noticed(kind, tiny_clip_dir):
    model = make(tiny_clip_dir, kind)
    reference = ReferenceModel(model)
    reference.assert_unchanged()
    weight = reference.model.vision_model.post_layernorm.bias
    with torch.no_grad():
        weight[0] += 1e-7
    with pytest.raises(ReferenceChangedError, match=r"1 weights .*post_layernorm\.bias.*shared=False"):
        reference.assert_unchanged()


def test_moves_with_its_trainer(tiny_clip_dir, tokenizer):
    model = make(tiny_clip_dir, "full")
    reference = ReferenceModel(model, encode_prompts(model, tokenizer, PROMPTS))
    assert reference.to("meta") is reference
    assert reference.text_features.device.type == reference.logit_scale.device.type == "meta"
    assert reference.model.device.type == "meta" and model.device.type == "cpu"


class TestPatches:
    def test_one_run_of_the_tower_gives_both(self, tiny_clip_dir, pixel_values, stock):
        model = RobustCLIPModel.from_pretrained(tiny_clip_dir).eval()
        calls = []
        model.vision_model.register_forward_hook(lambda *args: calls.append(1))
        with torch.no_grad():
            features, patches = model.encode_patches(pixel_values)
        assert calls == [1]
        assert torch.equal(features, stock["image"]) and torch.equal(patches, stock["patches"])

    def test_forward_returns_patches_and_scale_on_both_paths(
        self, tiny_clip_dir, tokenizer, pixel_values, stock
    ):
        model = RobustCLIPModel.from_pretrained(tiny_clip_dir).eval()
        states = encode_prompts(model, tokenizer, PROMPTS)
        text = dict(tokenizer(PROMPTS, padding=True, return_tensors="pt"))
        for way in ({"text_states": states}, text):
            out = model(pixel_values=pixel_values, patches=True, **way)
            assert torch.equal(out.patch_features, stock["patches"])
            assert out.logit_scale.shape == () and torch.equal(out.logit_scale, stock["scale"])
            (gradient,) = torch.autograd.grad(out.logit_scale, model.logit_scale)
            assert torch.equal(gradient, stock["scale"])
            assert "patch_features" not in model(pixel_values=pixel_values, **way)


def test_deep_copies_are_separate(tiny_clip_dir, pixel_values):
    """Hooks and adapters of a copy act for the copy alone."""
    model = make(tiny_clip_dir, "prompt").eval()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        before = model.encode_image(pixel_values)
        twin.visual_prompt.tokens += 1
        assert not torch.equal(twin.encode_image(pixel_values), before)
        assert torch.equal(model.encode_image(pixel_values), before)


@pytest.mark.parametrize("kind", ["full", "lora", "text", "projection"])
def test_kind11_captions_of_the_original_stay_its_own(kind, tiny_clip_dir, tokenizer, stock, pixel_values):
    model = make(tiny_clip_dir, "lora" if kind == "lora" else "full")
    if kind in ("text", "projection"):
        trained = {"text": ("vision", "text", "text_projection"), "projection": ("text_projection",)}[kind]
        set_trainable(model, trained)
    reference = ReferenceModel(model, captions=True)
    states = encode_prompts(model, tokenizer, PROMPTS)
    train(model)
    assert torch.allclose(reference.caption_features(tokenizer, PROMPTS), stock["text"], atol=1e-5)
    if kind != "text":  # the trunk is frozen, and its states are cached
        assert torch.allclose(
            reference.caption_features(tokenizer, PROMPTS, states), stock["text"], atol=1e-5
        )
    assert torch.equal(reference(pixel_values)[0], stock["image"])
    reference.assert_unchanged()
    with pytest.raises(ValueError, match="captions=True"):
        ReferenceModel(model).caption_features(tokenizer, PROMPTS)
