"""RobustSiglipModel: stock outputs, cached text states, patches, classifiers, groups, the frozen original."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tiny_data import make_images
from transformers import AutoProcessor, SiglipModel

from hf_hierrobust.adapters import add_visual_prompt
from hf_hierrobust.adapters.trainable import GROUPS, set_trainable
from hf_hierrobust.classifiers import ZeroShotClassifier
from hf_hierrobust.data import PixelCollator, PixelDataset
from hf_hierrobust.modeling import (
    PixelPipeline,
    ReferenceModel,
    RobustSiglipModel,
    TextEncoder,
    encode_prompts,
    text_inputs,
)

PROMPTS = ["this is a photo of a cat", "oak", "this is a photo of a rose animal"]


@pytest.fixture(scope="module")
def processor(tiny_siglip_dir):
    return AutoProcessor.from_pretrained(tiny_siglip_dir)


@pytest.fixture
def model(tiny_siglip_dir) -> RobustSiglipModel:
    return RobustSiglipModel.from_pretrained(tiny_siglip_dir).eval()


@pytest.fixture(scope="module")
def stock(tiny_siglip_dir) -> SiglipModel:
    return SiglipModel.from_pretrained(tiny_siglip_dir).eval()


@pytest.fixture(scope="module")
def pixel_values() -> torch.Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def inputs(processor, pixel_values) -> dict[str, torch.Tensor]:
    """As the model card says: padded to the whole context, no mask."""
    tokens = processor(text=PROMPTS, padding="max_length", return_tensors="pt")
    assert tokens.keys() == {"input_ids"} and tokens["input_ids"].shape == (3, 64)
    return dict(tokens) | {"pixel_values": pixel_values}


@pytest.fixture(scope="module")
def expected(stock, inputs):
    with torch.no_grad():
        return stock(**inputs)


class TestForward:
    def test_is_the_stock_forward_with_features_and_tangents(self, model, stock, inputs, expected):
        with torch.no_grad():
            found = model(**inputs)
            images = stock.get_image_features(inputs["pixel_values"]).pooler_output
            texts = stock.get_text_features(inputs["input_ids"]).pooler_output
        for key in ("logits_per_image", "logits_per_text", "image_embeds", "text_embeds"):
            assert torch.equal(found[key], expected[key])
        assert torch.equal(found.image_features, images) and torch.equal(found.text_features, texts)
        assert (images.norm(dim=1) - 1).abs().min() > 0.05, "must not be normalised"
        assert torch.allclose(found.image_tangent, model.hier_head.log_image_scale.exp() * images)
        assert found.logit_scale.shape == found.logit_bias.shape == ()
        assert found.logit_scale.item() == pytest.approx(10) and found.logit_bias == -10
        assert found.patch_features is None and expected.logits_per_image.std() > 0.1

    def test_return_loss_is_the_sigmoid_loss(self, model, stock, inputs):
        square = inputs | {"pixel_values": inputs["pixel_values"][:3], "return_loss": True}
        with torch.no_grad():
            assert torch.equal(model(**square).loss, stock(**square).loss)

    def test_cached_text_states_stand_in_for_the_text_tower(self, model, inputs, processor):
        states = encode_prompts(model, processor.tokenizer, PROMPTS, batch_size=2)
        assert states.shape == (3, 32) and not states.requires_grad
        with torch.no_grad():
            cached = model(pixel_values=inputs["pixel_values"], text_states=states, patches=True)
            whole = model(**inputs, patches=True)
        assert cached.keys() == whole.keys() - {"text_model_output", "vision_model_output"}
        for key, value in cached.items():
            assert torch.allclose(value, whole[key], atol=1e-5), key

    def test_the_text_head_trains_through_cached_states(self, model, pixel_values, processor):
        states = encode_prompts(model, processor.tokenizer, PROMPTS)
        set_trainable(model, ["text_projection", "logit_scale", "hier_head"])
        out = model(pixel_values=pixel_values, text_states=states)
        loss = F.logsigmoid(out.logits_per_image).sum() + out.text_tangent.sum() + out.image_tangent.sum()
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        assert {"logit_scale", "logit_bias"} < trained.keys()
        gradients = torch.autograd.grad(loss, list(trained.values()))
        assert all(g.abs().sum() > 0 for g in gradients)


class TestText:
    def test_inputs_are_padded_to_the_context_without_a_mask(self, model, processor, inputs):
        found = text_inputs(model, processor.tokenizer, PROMPTS)
        assert found.keys() == {"input_ids"} and torch.equal(found["input_ids"], inputs["input_ids"])

    def test_padding_matters(self, model, processor, expected):
        short = processor.tokenizer(PROMPTS, padding=True, return_tensors="pt")
        with torch.no_grad():
            wrong = F.normalize(model.get_text_features(**short).pooler_output, dim=-1)
        assert (wrong - expected.text_embeds).abs().max() > 1e-3, "a test that padding is right needs this"

    def test_encoder_and_cached_states_agree(self, model, processor, expected):
        states = encode_prompts(model, processor.tokenizer, PROMPTS)
        with torch.no_grad():
            features = model.project_text(states)
        assert torch.allclose(TextEncoder(model, processor.tokenizer)(PROMPTS), features, atol=1e-5)
        assert torch.allclose(F.normalize(features, dim=-1), expected.text_embeds, atol=1e-5)

    def test_a_text_beyond_the_context_is_refused(self, model, processor):
        with pytest.raises(ValueError, match=r"has \d+ tokens but the text encoder's context is 64"):
            encode_prompts(model, processor.tokenizer, ["cat", "photo of a cat " * 20])

    def test_templates_are_averaged_after_the_head(self, model, processor):
        rows = [[f"a photo of a {name}", name] for name in ("cat", "oak")]
        states = encode_prompts(model, processor.tokenizer, rows)
        with torch.no_grad():
            found = model.project_text(states)
            units = F.normalize(model.text_model.head(states), dim=-1)
        assert torch.allclose(F.normalize(found, dim=-1), F.normalize(units.mean(1), dim=-1), atol=1e-6)


class TestPatches:
    def test_are_one_a_patch_beside_the_pooled_embedding(self, model, pixel_values, expected):
        with torch.no_grad():
            features, patches = model.encode_patches(pixel_values)
            hidden = expected.vision_model_output.last_hidden_state
            one = model.vision_model.head(hidden[:, 5:6])
        assert patches.shape == (4, 16, 32)
        assert torch.allclose(F.normalize(features, dim=-1), expected.image_embeds, atol=1e-6)
        assert torch.allclose(patches[:, 5], one, atol=1e-5)

    def test_are_in_the_space_of_the_pooled_embedding(self, model):
        """An image whose tokens are all the same is pooled to what each of them is projected to."""
        token = torch.randn(2, 1, 32, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            pooled = model.vision_model.head(token.expand(2, 16, 32))
            patches = model._project_patches(token.expand(2, 16, 32))
        assert torch.allclose(patches, pooled[:, None].expand_as(patches), atol=1e-5)
        assert pooled.std() > 0.1

    def test_the_pooled_state_is_a_weighted_mean_of_theirs(self, model, expected):
        """Before the head's MLP; with one attention head the weights are those of the probe."""
        head, hidden = model.vision_model.head, expected.vision_model_output.last_hidden_state
        head.attention.num_heads, head.attention.head_dim = 1, 32
        with torch.no_grad():
            probe = head.probe.expand(4, 1, 32)
            pooled, weights = head.attention(probe, hidden, hidden)
            tokens = hidden.reshape(64, 1, 32)
            alone, _ = head.attention(head.probe.expand(64, 1, 32), tokens, tokens)
        assert torch.allclose(weights @ alone.view(4, 16, 32), pooled, atol=1e-5)

    def test_have_gradients(self, model, pixel_values):
        images = pixel_values.clone().requires_grad_()
        _, patches = model.encode_patches(images)
        (gradient,) = torch.autograd.grad(patches.square().sum(), images)
        assert (gradient.flatten(1).norm(dim=1) > 0).all()


class TestPixels:
    def test_pipeline_equals_the_processor(self, processor):
        pipeline = PixelPipeline(processor.image_processor)
        assert pipeline.model_size == (32, 32)
        for size, tolerance in (((32, 32), 1e-3), ((40, 56), 1.3), ((20, 28), 1.3)):  # in grey levels
            image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype("uint8")
            wanted = processor(images=Image.fromarray(image), return_tensors="pt")["pixel_values"]
            found = pipeline(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)
            assert found.shape == wanted.shape == (1, 3, 32, 32)
            assert ((found - wanted) * pipeline.std * 255).abs().max() < tolerance

    def test_collator_resizes_as_the_processor(self, processor):
        examples = [PixelDataset(make_images(2, size=40))[i] for i in range(2)]
        batch = PixelCollator(processor.image_processor, "model")(examples)
        wanted = processor(images=[e["image"] for e in examples], return_tensors="pt")["pixel_values"]
        pipeline = PixelPipeline(processor.image_processor)
        assert torch.allclose(pipeline(batch["pixels"]), wanted, atol=1e-5)


class TestZeroShot:
    def test_logits_are_the_models_own(self, model, processor, inputs, expected):
        states = encode_prompts(model, processor.tokenizer, PROMPTS)
        classifier = ZeroShotClassifier(model, PixelPipeline(processor.image_processor), states)
        pixels = (inputs["pixel_values"] * 0.5 + 0.5).clamp(0, 1)
        with torch.no_grad():
            wanted = model(**inputs | {"pixel_values": pixels * 2 - 1}).logits_per_image
            found = classifier(pixels)
        assert found.shape == (4, 3) and torch.allclose(found, wanted, atol=1e-4)
        assert found.max() < 0, "the bias belongs to the logits"


class TestGroups:
    def test_train_what_they_say(self, model):
        def size(*parts) -> int:
            return sum(p.numel() for part in parts for p in part.parameters())

        head = size(model.text_model.head)
        expected = {
            "vision": size(model.vision_model),
            "text": size(model.text_model) - head,
            "text_projection": head,
            "logit_scale": 2,
            "hier_head": 2,
        }
        assert set_trainable(model, list(expected)) == expected
        assert sum(expected.values()) == size(model)
        set_trainable(model, ["text_projection"])
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        assert trained == {"text_model.head.weight", "text_model.head.bias"}
        set_trainable(model, ["vision"])
        assert model.vision_model.head.probe.requires_grad
        assert set(expected) | {"visual_prompt"} == set(GROUPS)


class TestReference:
    @pytest.mark.parametrize("kind", ["full", "prompt"])
    def test_is_the_stock_model_before_and_after_training(self, kind, model, processor, inputs, expected):
        if kind == "prompt":
            add_visual_prompt(model, tokens=3, border=2)
        set_trainable(model, ["vision", "text_projection"])
        reference = ReferenceModel(model, encode_prompts(model, processor.tokenizer, PROMPTS))
        assert reference.shared == (kind == "prompt") and reference.logit_scale.shape == ()
        with torch.no_grad():
            before = model.encode_image(inputs["pixel_values"])
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter += 0.1
            features, patches = reference(inputs["pixel_values"], patches=True)
            moved = model.encode_image(inputs["pixel_values"])
        assert patches.shape == (4, 16, 32) and not torch.allclose(moved, before, atol=1e-3)
        assert torch.allclose(F.normalize(features, dim=-1), expected.image_embeds, atol=1e-5)
        assert torch.allclose(F.normalize(reference.text_features, dim=-1), expected.text_embeds, atol=1e-5)
        reference.assert_unchanged()


class TestVisualPrompt:
    def test_prompt_tokens_are_pooled_but_are_no_patches(self, model, pixel_values):
        with torch.no_grad():
            plain, _ = model.encode_patches(pixel_values)
            add_visual_prompt(model, tokens=3)
            features, patches = model.encode_patches(pixel_values)
            hidden = model.vision_model(pixel_values=pixel_values).last_hidden_state
            alone = model.vision_model.head(hidden[:, 3:4])
        assert hidden.shape[1] == 3 + 16 and patches.shape == (4, 16, 32)
        assert torch.allclose(patches[:, 0], alone, atol=1e-5)
        assert not torch.allclose(features, plain, atol=1e-3)
