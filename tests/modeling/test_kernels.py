"""Kernels of attack loops: the same embeddings and gradients, and nothing left behind."""

from __future__ import annotations

import pytest
import torch

from hf_hierrobust import precision
from hf_hierrobust.adapters.lora import add_lora, lora_config
from hf_hierrobust.modeling import load_robust_model
from hf_hierrobust.modeling.frozen_layers import frozen_layers
from hf_hierrobust.modeling.kernels import attack_kernels


def embed(model, pixel_values):
    """Image embeddings and the gradient of their sum of squares."""
    x = pixel_values.clone().requires_grad_()
    features = model.encode_image(x)
    return features.detach(), torch.autograd.grad(features.pow(2).sum(), x)[0]


def near(found, expected):
    return all((a - b).abs().max() < 2e-6 * b.abs().max() for a, b in zip(found, expected))


@pytest.fixture
def pixel_values(clip_model):
    size = clip_model.config.vision_config.image_size
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def clip_model(tiny_clip_dir):
    return load_robust_model(tiny_clip_dir).eval()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["fused", "plain", "lora"])
def test_frozen_layers_give_the_same(clip_model, pixel_values, attention, kind):
    if kind == "lora":
        pytest.importorskip("peft")
        add_lora(clip_model, lora_config(["vision"], r=2))
    clip_model.set_attn_implementation(attention)
    expected, layer = embed(clip_model, pixel_values), clip_model.vision_model.encoder.layers[-1]
    rows = []
    hook = layer.layer_norm2.register_forward_hook(lambda module, args, out: rows.append(out.shape[1]))
    with frozen_layers(clip_model, fused=kind != "plain"):
        assert near(embed(clip_model, pixel_values), expected)
        with frozen_layers(clip_model):
            assert near(embed(clip_model, pixel_values), expected)
    assert torch.equal(embed(clip_model, pixel_values)[0], expected[0])
    hook.remove()
    assert rows[:2] == [1, 1] and rows[2] > 1, "inside one token, outside all again"
    assert all(p.grad is None for p in clip_model.parameters())


def test_an_error_leaves_the_model_as_it_was(clip_model, pixel_values):
    expected = clip_model.encode_patches(pixel_values)
    with pytest.raises(RuntimeError, match="stop"), attack_kernels(clip_model, None):
        raise RuntimeError("stop")
    assert all(map(torch.equal, clip_model.encode_patches(pixel_values), expected))


def test_other_families_are_left_alone(tiny_siglip_dir):
    model = load_robust_model(tiny_siglip_dir).eval()
    size = model.config.vision_config.image_size
    pixels = torch.randn(2, 3, size, size)
    expected = embed(model, pixels)
    with attack_kernels(model, None):
        assert all(map(torch.equal, embed(model, pixels), expected))


def test_onednn_is_used_where_it_leads_and_given_back(clip_model, pixel_values, monkeypatch):
    expected = embed(clip_model, pixel_values)
    before = torch.get_float32_matmul_precision()
    capability = precision.Capability("cpu", "AMD", False, onednn_fp32=True)
    monkeypatch.setattr(precision, "query_capability", lambda kind: capability)
    with attack_kernels(clip_model, None):
        assert torch.get_float32_matmul_precision() == "medium"
        assert clip_model.config._attn_implementation == "eager"
        if precision._onednn_leads(precision._processor_flags() or {}):
            assert near(embed(clip_model, pixel_values), expected)
    assert torch.get_float32_matmul_precision() == before
    assert clip_model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("flags", "leads"),
    [
        ({"cpu_name": "AMD EPYC"}, True),
        ({"cpu_name": "AMD EPYC", "amx_tile": True}, False),
        ({"cpu_name": "Intel(R) Xeon(R)"}, False),
        ({}, False),
    ],
)
def test_which_processors_prefer_onednn(monkeypatch, flags, leads):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert precision._onednn_leads(flags) is leads
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not precision._onednn_leads(flags)
