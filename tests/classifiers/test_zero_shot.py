"""Zero-shot classifiers, parameter groups and attention kernels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoProcessor

from hf_hierrobust.adapters.trainable import GROUPS, set_trainable
from hf_hierrobust.attacks import PGD
from hf_hierrobust.classifiers import ZeroShotClassifier
from hf_hierrobust.modeling import PixelPipeline, RobustCLIPModel, encode_prompts
from hf_hierrobust.modeling.kernels import fast_kernels

NAMES = ["cat", "dog", "oak", "rose"]
TEMPLATES = ["{}", "this is a photo of a {}", "picture {}"]


@pytest.fixture(scope="module")
def processor(tiny_clip_dir):
    return AutoProcessor.from_pretrained(tiny_clip_dir)


@pytest.fixture
def model(tiny_clip_dir) -> RobustCLIPModel:
    return RobustCLIPModel.from_pretrained(tiny_clip_dir)


@pytest.fixture
def states(model, processor) -> torch.Tensor:
    return encode_prompts(model, processor.tokenizer, NAMES)


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def classifier(model, processor, states, *args, **kwargs) -> ZeroShotClassifier:
    return ZeroShotClassifier(model, PixelPipeline(processor.image_processor), states, *args, **kwargs)


class TestEncodePrompts:
    def test_equals_the_text_tower_whatever_the_batch(self, model, processor):
        prompts = [t.format(n) for n in NAMES for t in TEMPLATES]
        states = encode_prompts(model, processor.tokenizer, prompts)
        batch = processor.tokenizer(prompts, padding="max_length", return_tensors="pt")
        with torch.no_grad():
            expected = model.get_text_features(**batch).pooler_output
            assert torch.allclose(model.project_text(states), expected, atol=1e-5)
        small = encode_prompts(model, processor.tokenizer, prompts, batch_size=5)
        assert torch.allclose(small, states, atol=1e-5)
        assert torch.cdist(states, states).fill_diagonal_(1).min() > 1e-3, "prompts must differ"

    def test_templates_are_rows(self, model, processor):
        prompts = [[t.format(n) for t in TEMPLATES] for n in NAMES]
        states = encode_prompts(model, processor.tokenizer, prompts)
        flat = encode_prompts(model, processor.tokenizer, [p for row in prompts for p in row])
        assert torch.equal(states, flat.view(4, 3, -1))
        one = encode_prompts(model, processor.tokenizer, [[n] for n in NAMES])
        assert torch.allclose(one, encode_prompts(model, processor.tokenizer, NAMES), atol=1e-6)

    def test_bad_prompts_are_refused(self, model, processor):
        long = "this is a photo of a " * 4 + "cat"
        length = len(processor.tokenizer(long)["input_ids"])
        message = rf"prompt '{long}' has {length} tokens but the text encoder's context is 16"
        with pytest.raises(ValueError, match=message):
            encode_prompts(model, processor.tokenizer, ["cat", long, "dog"])
        with pytest.raises(ValueError, match=r"prompts is empty"):
            encode_prompts(model, processor.tokenizer, [])
        with pytest.raises(ValueError, match=r"the same number of prompts"):
            encode_prompts(model, processor.tokenizer, [["a cat", "cat"], ["dog"]])

    def test_every_module_keeps_its_mode(self, model, processor):
        model.train()
        model.text_model.eval()
        before = [m.training for m in model.modules()]
        encode_prompts(model, processor.tokenizer, NAMES)
        assert [m.training for m in model.modules()] == before and len(set(before)) == 2

        def explode(*_):
            raise RuntimeError("stop")

        model.text_model.register_forward_pre_hook(explode)
        with pytest.raises(RuntimeError, match="stop"):
            encode_prompts(model, processor.tokenizer, NAMES)
        assert [m.training for m in model.modules()] == before


class TestCosine:
    def test_is_clips_own_logits(self, model, processor, states, pixels):
        ids = processor.tokenizer(NAMES, padding=True, return_tensors="pt")
        with torch.no_grad():
            expected = model(**ids, pixel_values=(pixels - 0.5) / 0.5).logits_per_image
            found = classifier(model, processor, states)(pixels)
        assert torch.allclose(found, expected, atol=1e-4)

    def test_ensemble_is_clips_protocol(self, model, processor, pixels):
        """Mean over templates of unit embeddings, normalised again (Radford et al., 2103.00020)."""
        states = encode_prompts(model, processor.tokenizer, [[t.format(n) for t in TEMPLATES] for n in NAMES])
        with torch.no_grad():
            zeroshot = []
            for name in NAMES:
                ids = processor.tokenizer(
                    [t.format(name) for t in TEMPLATES], padding=True, return_tensors="pt"
                )
                embeddings = F.normalize(model.get_text_features(**ids).pooler_output, dim=-1)
                zeroshot.append(F.normalize(embeddings.mean(0), dim=0))
            text = torch.stack(zeroshot)
            images = F.normalize(model.encode_image((pixels - 0.5) / 0.5), dim=-1)
            found = classifier(model, processor, states)(pixels)
            features = model.project_text(states)
            assert torch.allclose(found, model.logit_scale.exp() * images @ text.T, atol=1e-4)
            assert torch.allclose(F.normalize(features, dim=-1), text, atol=1e-5)
            norms = model.text_projection(states).norm(dim=-1).mean(1)
            assert torch.allclose(features.norm(dim=-1), norms, rtol=1e-5)


class TestHyperbolic:
    def test_uncalibrated_head_is_refused(self, model, processor, states, pixels):
        with pytest.raises(RuntimeError, match="the hyperbolic head is not calibrated"):
            classifier(model, processor, states, "hyperbolic")(pixels)

    @pytest.fixture
    def calibrated(self, model, states, pixels):
        with torch.no_grad():
            images, texts = model.encode_image((pixels - 0.5) / 0.5), model.project_text(states)
            labels = torch.zeros(16, dtype=torch.long)
            model.hier_head.configure(**model.hier_head.constants | {"tangent_norm": 0.4})
            model.hier_head.calibrate(images, texts, labels, 100.0)
        return model

    def test_is_the_distance_of_the_lifted_features(self, calibrated, processor, states, pixels):
        head = calibrated.hier_head
        with torch.no_grad():
            images = head.image_tangent(calibrated.encode_image((pixels - 0.5) / 0.5))
            texts = head.text_tangent(calibrated.project_text(states))
            found = classifier(calibrated, processor, states, "hyperbolic")(pixels)
        u, v = (
            x.double() / x.double().norm(dim=1, keepdim=True) * x.double().norm(dim=1, keepdim=True).tanh()
            for x in (images, texts)
        )
        gap = torch.cdist(u, v).square()
        gap = gap / ((1 - u.square().sum(1, keepdim=True)) * (1 - v.square().sum(1)))
        assert torch.allclose(found.double(), -head.kappa * (1 + 2 * gap).acosh(), atol=1e-3)
        assert found.std() > 0.1

    def test_agrees_with_cosine_where_texts_have_equal_norms(self, calibrated, processor, pixels):
        states = torch.randn(12, 32, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            norms = calibrated.project_text(states).norm(dim=1, keepdim=True)
            spread = states * torch.linspace(0.5, 3, 12)[:, None]
            equal = states / norms  # the projection is linear and has no bias
            by = {
                (kind, score): classifier(calibrated, processor, s, score)(pixels).argsort(1)
                for kind, s in (("equal", equal), ("spread", spread))
                for score in ("cosine", "hyperbolic")
            }
        assert torch.equal(by["equal", "cosine"], by["equal", "hyperbolic"])
        assert len(by["equal", "cosine"].unique(dim=0)) > 1, "images must differ"
        assert not torch.equal(by["spread", "cosine"], by["spread", "hyperbolic"]), "norms must matter"


def test_autocast_is_only_in_the_image_tower(model, processor, states, pixels):
    full = classifier(model, processor, states)
    cheap = full.with_autocast(torch.bfloat16)
    with torch.no_grad():
        exact, rough = full(pixels), cheap(pixels)
        assert rough.dtype == cheap.features(pixels).dtype == torch.float32
    assert torch.allclose(exact, rough, atol=0.2) and not torch.equal(exact, rough)
    assert full.autocast is None and cheap.module is full.module


def test_unknown_score(model, processor, states):
    with pytest.raises(ValueError, match=r"score='euclidean' is unknown: choose 'cosine' or 'hyperbolic'"):
        classifier(model, processor, states, "euclidean")


def test_attack_through_the_classifier_leaves_the_model_alone(model, processor, states, pixels):
    model.train()
    model.logit_scale.grad = torch.tensor(3.0)
    victim = classifier(model, processor, states)
    with torch.no_grad():
        labels = victim(pixels).argmax(1)
    small = F.interpolate(pixels, size=(24, 24))  # the attack lives on the native size
    attack = PGD(eps=8 / 255, num_steps=3)
    generator = torch.Generator().manual_seed(0)
    search = victim.with_autocast(torch.bfloat16)
    result = attack(victim, small, labels, search=search, generator=generator)
    assert result.adversarial.shape == small.shape and result.zero_gradient == 0
    assert all(m.training for m in model.modules()) and all(p.requires_grad for p in model.parameters())
    assert model.logit_scale.grad == 3 and all(
        p.grad is None for n, p in model.named_parameters() if n != "logit_scale"
    )


class TestSetTrainable:
    def test_counts_and_flags(self, model):
        def size(*parts: nn.Module) -> int:
            return sum(p.numel() for part in parts for p in part.parameters())

        expected = {
            "vision": size(model.vision_model, model.visual_projection),
            "text_projection": size(model.text_projection),
            "hier_head": 2,
        }
        assert set_trainable(model, ["vision", "text_projection", "hier_head"]) == expected
        trained = {n.split(".")[0] for n, p in model.named_parameters() if p.requires_grad}
        assert trained == {"vision_model", "visual_projection", "text_projection", "hier_head"}
        assert set_trainable(model, ["logit_scale"]) == {"logit_scale": 1}
        assert [n for n, p in model.named_parameters() if p.requires_grad] == ["logit_scale"]
        everything = [group for group in GROUPS if group != "visual_prompt"]  # this model has none
        assert sum(set_trainable(model, everything).values()) == size(model)
        assert set_trainable(model, []) == {} and not any(p.requires_grad for p in model.parameters())

    def test_errors_change_nothing(self, model):
        set_trainable(model, ["vision"])
        before = [p.requires_grad for p in model.parameters()]
        with pytest.raises(
            ValueError, match=r"unknown parameter groups \['visual'\]: choose from vision, text"
        ):
            set_trainable(model, ["text", "visual"])
        bare = nn.ModuleDict({"vision_model": nn.Linear(2, 2)})
        with pytest.raises(ValueError, match=r"ModuleDict has no parameters of the groups \['text'\]"):
            set_trainable(bare, ["text"])
        assert [p.requires_grad for p in model.parameters()] == before
        assert all(p.requires_grad for p in bare.parameters())


class TestFastKernels:
    @staticmethod
    def kinds(model) -> set[str]:
        parts = (model, model.vision_model, model.text_model)
        return {part.config._attn_implementation for part in parts}

    def test_eager_under_bf16_and_restored(self, model):
        assert self.kinds(model) == {"sdpa"}
        with fast_kernels(model, torch.bfloat16):
            assert self.kinds(model) == {"eager"}
        assert self.kinds(model) == {"sdpa"}
        with pytest.raises(RuntimeError, match="stop"), fast_kernels(model, torch.bfloat16):
            raise RuntimeError("stop")
        assert self.kinds(model) == {"sdpa"}

    def test_each_tower_gets_its_own_back(self, model):
        model.set_attn_implementation({"text_config": "eager"})
        with fast_kernels(model, torch.bfloat16):
            assert self.kinds(model) == {"eager"}
        configs = (model.config, model.vision_model.config, model.text_model.config)
        assert [config._attn_implementation for config in configs] == ["sdpa", "sdpa", "eager"]

    def test_fp32_and_eager_models_keep_theirs(self, model):
        with fast_kernels(model, None):
            assert self.kinds(model) == {"sdpa"}
        model.set_attn_implementation("eager")
        with fast_kernels(model, torch.bfloat16):
            assert self.kinds(model) == {"eager"}
        assert self.kinds(model) == {"eager"}

    def test_both_kernels_agree(self, model, processor, states, pixels):
        scorer = classifier(model, processor, states)
        with torch.no_grad():
            expected = scorer(pixels)
            with fast_kernels(model, torch.bfloat16):
                assert torch.allclose(scorer(pixels), expected, atol=1e-4)
