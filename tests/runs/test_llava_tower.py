"""The recipe of docs/llava.md on a tiny LLaVA: tokens and logits against independent computations."""

from __future__ import annotations

import importlib.util
import io
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "llava_tower.py"
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "patch_size": 14,
    "hidden_act": "quick_gelu",
}
IMAGE = 7  # the id of the image token


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("llava_tower", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def robust_clip(folder: Path, size: int) -> Path:
    torch.manual_seed(1)
    text = CLIPTextConfig(
        vocab_size=99, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1
    )
    config = CLIPConfig(
        text_config=text.to_dict(), vision_config=VISION | {"image_size": size}, projection_dim=16
    )
    CLIPModel(config).save_pretrained(folder)
    return folder


def tiny_llava(size: int, **shape) -> LlavaForConditionalGeneration:
    torch.manual_seed(0)
    text = LlamaConfig(
        vocab_size=50, hidden_size=24, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    vision = CLIPVisionConfig(**VISION | shape, image_size=size)
    return LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=text, image_token_id=IMAGE)
    ).eval()


@pytest.mark.parametrize(("size", "tokens"), [(224, 256), (336, 576)])
def test_the_tower_drops_in_at_its_own_size(size, tokens, recipe, tmp_path):
    robust = robust_clip(tmp_path / "robust", size)
    tower, report = CLIPVisionModel.from_pretrained(robust, output_loading_info=True)
    assert not report["missing_keys"] and not report["mismatched_keys"]
    llava = tiny_llava(size)
    projector = {k: v.clone() for k, v in llava.state_dict().items() if "vision_tower" not in k}
    recipe.with_tower(llava, tower).save_pretrained(tmp_path / "llava")
    loaded = LlavaForConditionalGeneration.from_pretrained(tmp_path / "llava").eval()
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in projector.items())

    pixels = torch.randn(1, 3, size, size)
    ids = torch.tensor([[1, *[IMAGE] * tokens, 3, 4]])
    with torch.no_grad():
        # The whole CLIP's own tower, its tokens projected and put among the word embeddings by hand.
        clip = CLIPModel.from_pretrained(robust).vision_model(pixels, output_hidden_states=True)
        patches = clip.hidden_states[-2][:, 1:]
        assert patches.shape == (1, tokens, 32)
        words = loaded.get_input_embeddings()(ids)
        words[0, 1 : 1 + tokens] = loaded.model.multi_modal_projector(patches)[0]
        by_hand = loaded.lm_head(loaded.model.language_model(inputs_embeds=words).last_hidden_state)
        logits = loaded(input_ids=ids, pixel_values=pixels).logits
    assert torch.allclose(logits, by_hand, atol=1e-5)


def test_a_tower_of_224_pixels_in_a_llava_of_336(recipe, tmp_path, monkeypatch):
    robust = robust_clip(tmp_path / "robust", 224)
    tiny_llava(336).save_pretrained(tmp_path / "llava")
    CLIPImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}).save_pretrained(
        tmp_path / "llava"
    )
    monkeypatch.setattr(
        sys, "argv", ["llava_tower", *(str(tmp_path / n) for n in ("llava", "robust", "out"))]
    )
    monkeypatch.setattr(recipe, "AutoProcessor", CLIPImageProcessor)  # the tiny LLaVA has no tokenizer
    recipe.main()
    loaded = LlavaForConditionalGeneration.from_pretrained(tmp_path / "out").eval()
    pixels = torch.randn(2, 3, 336, 336)
    with torch.no_grad():
        small = CLIPVisionModel.from_pretrained(robust)
        with pytest.raises(ValueError, match="336"):
            small(pixels)
        stock = small(pixels, interpolate_pos_encoding=True, output_hidden_states=True).hidden_states[-2]
        mine = loaded.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-2]
    assert mine.shape[1] == 577 and torch.allclose(mine, stock, atol=1e-5)
    with pytest.raises(ValueError, match="no multiple of the patch size"):
        recipe.at_resolution(small, 225)
    other = CLIPVisionModel(CLIPVisionConfig(**VISION | {"hidden_act": "gelu"}, image_size=336))
    with pytest.raises(ValueError, match="hidden_act is gelu, the LLaVA's quick_gelu"):
        recipe.with_tower(loaded, other)


def test_real_photos_through_a_real_tower(recipe, shared_dir):
    """clip-small's tokens of photos, by its whole CLIP and a projection by hand, are what the LLaVA reads."""
    source = shared_dir / "models" / "clip-small"
    rows = pq.read_table(shared_dir / "data/cifar100/test.parquet", columns=["image"])[:4][
        "image"
    ].to_pylist()
    photos = [Image.open(io.BytesIO(row["bytes"])) for row in rows]
    pixels = CLIPImageProcessor.from_pretrained(source)(photos, return_tensors="pt").pixel_values
    whole = CLIPModel.from_pretrained(source, dtype=torch.float32).eval()
    shape = {name: getattr(whole.config.vision_config, name) for name in recipe.SHAPE}
    llava = tiny_llava(whole.config.vision_config.image_size, **shape)
    with torch.no_grad():
        before = torch.stack(list(llava.get_image_features(pixel_values=pixels).pooler_output))
        recipe.with_tower(llava, CLIPVisionModel.from_pretrained(source, dtype=torch.float32))
        found = torch.stack(list(llava.get_image_features(pixel_values=pixels).pooler_output))
        tokens = whole.vision_model(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        first, second = (
            llava.model.multi_modal_projector.linear_1,
            llava.model.multi_modal_projector.linear_2,
        )
        hidden = torch.einsum("nph,oh->npo", tokens, first.weight) + first.bias
        wanted = torch.einsum("npo,qo->npq", torch.nn.functional.gelu(hidden), second.weight) + second.bias
    assert found.shape == (4, 36, 24) and not torch.allclose(before, wanted, atol=1e-2)
    assert torch.allclose(found, wanted, atol=1e-5)
