"""Adapters that are refused."""

from __future__ import annotations

import sys

import pytest
from lora_models import HIER, with_lora

from hf_hierrobust.adapters import add_lora, lora_config
from hf_hierrobust.adapters.lora import adapter_layers
from hf_hierrobust.modeling import RobustCLIPModel

peft = pytest.importorskip("peft")


class TestRefusals:
    @pytest.mark.parametrize(
        ("groups", "options", "message"),
        [
            (("vision",), {"towers": ["text"]}, r"towers \['text'\] must be among .* \['vision'\]"),
            (("vision",), {"towers": []}, "must be among"),
            (("hier_head",), {}, "none of them"),
            (("vision",), {"r": 0}, "r=0"),
            (("vision",), {"r": 2.5}, "r=2.5"),
            (("vision",), {"dropout": 1.0}, "dropout=1.0"),
        ],
    )
    def test_options(self, groups, options, message):
        with pytest.raises(ValueError, match=message):
            lora_config(groups, **options)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"target_modules": ["q_proj"], "bias": "all"}, "bias='all'"),
            ({"target_modules": ["q_proj"], "modules_to_save": ["hier_head"]}, "its own file"),
            ({"target_modules": ["q_proj"], "trainable_token_indices": [1]}, "cannot be merged"),
            ({"target_modules": ["qkv"]}, "qkv"),
        ],
    )
    def test_configurations(self, tiny_clip_dir, options, message):
        model = RobustCLIPModel.from_pretrained(tiny_clip_dir)
        with pytest.raises(ValueError, match=message):
            add_lora(model, peft.LoraConfig(**options))
        assert not adapter_layers(model) and all(p.requires_grad for p in model.parameters())

    @pytest.mark.parametrize("start", ["pissa", "olora"])
    def test_starts_that_rewrite_base_weights(self, tiny_clip_dir, start):
        model = RobustCLIPModel.from_pretrained(tiny_clip_dir)
        config = lora_config(["vision"])
        config.init_lora_weights = start
        with pytest.raises(ValueError, match=f"init_lora_weights='{start}', which rewrote .* base weights"):
            add_lora(model, config)

    def test_adapters_twice(self, tiny_clip_dir):
        model = with_lora(tiny_clip_dir)
        with pytest.raises(ValueError, match="adapters already"):
            add_lora(model, lora_config(HIER))

    def test_peft_missing(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "peft", None)
        with pytest.raises(ImportError, match=r"hf_hierrobust\[peft\]"):
            lora_config(["vision"])
