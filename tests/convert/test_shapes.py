"""open_clip's networks, built here of torch's own attention, give the features of what convert writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from open_clip_oracle import config_of, oracle
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoProcessor, CLIPModel, CLIPVisionModel

from hf_hierrobust.demo.tiny import build_tokenizer
from hf_hierrobust.runs.convert import convert

SHAPES = {
    "B/32": {"size": 224, "patch": 32, "width": 768, "layers": 2},  # the true width
    "B/16": {"size": 224, "patch": 16, "width": 128, "layers": 2},
    "L/14": {"size": 224, "patch": 14, "width": 128, "layers": 3},
    "L/14-336": {"size": 336, "patch": 14, "width": 128, "layers": 2},
}


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(["a photo of a cat", "a photo of a dog"]).save_pretrained(folder)
    return folder


def repository(folder: Path, model, quick: bool, tokenizer: Path | None = None) -> Path:
    folder.mkdir()
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config_of(model, quick)}))
    for file in tokenizer.iterdir() if tokenizer else ():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.mark.parametrize("quick", [True, False], ids=["quick_gelu", "gelu"])
@pytest.mark.parametrize("name", SHAPES)
def test_features_and_hidden_states_are_open_clips(name, quick, words, tmp_path):
    tokenizer = build_tokenizer(["a photo of a cat", "a photo of a dog"])
    theirs = oracle(**SHAPES[name], vocab=len(tokenizer), context=16, quick=quick)
    source = repository(tmp_path / "theirs", theirs, quick)
    done = convert(source, tmp_path / "ours", base=words)
    ours, report = CLIPModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values())
    size = SHAPES[name]["size"]
    assert done.facts["image size"] == ours.config.vision_config.image_size == size
    assert ours.config.text_config.hidden_act == ("quick_gelu" if quick else "gelu")

    processor = AutoProcessor.from_pretrained(tmp_path / "ours")
    photo = torch.randint(0, 256, (300, 401, 3), generator=torch.Generator().manual_seed(1)).byte().numpy()
    pixels = processor(images=photo, return_tensors="pt").pixel_values
    assert pixels.shape[-2:] == (size, size)
    ids = processor.tokenizer(
        ["a photo of a cat", "dog"], padding="max_length", return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        out = ours(pixel_values=pixels, input_ids=ids)
        image, text = theirs.encode_image(pixels), theirs.encode_text(ids)
        tower = CLIPVisionModel.from_pretrained(tmp_path / "ours")(pixels, output_hidden_states=True)
    assert (out.vision_model_output.pooler_output - image).abs().max() < 1e-5
    assert (out.text_model_output.pooler_output - text).abs().max() < 1e-5
    assert (tower.hidden_states[-2] - theirs.visual.hidden).abs().max() < 1e-5
    assert out.logits_per_image[0, 0] == pytest.approx(
        float(torch.cosine_similarity(image, text)[0] * theirs.logit_scale.detach().exp()), abs=1e-3
    )

    convert(tmp_path / "ours", tmp_path / "again", to="open_clip")
    back = load_file(tmp_path / "again" / "open_clip_model.safetensors")
    assert back.keys() == theirs.state_dict().keys()
    assert all(torch.equal(back[key], value) for key, value in theirs.state_dict().items())
    cfg = json.loads((tmp_path / "again" / "open_clip_config.json").read_text())["model_cfg"]
    wanted = config_of(theirs, quick)
    assert cfg["vision_cfg"].items() >= wanted.pop("vision_cfg").items()
    assert cfg["text_cfg"].items() >= wanted.pop("text_cfg").items()
    assert cfg.items() >= wanted.items()

    convert(tmp_path / "again", tmp_path / "third")  # which brings its own tokenizer
    third, first = (CLIPModel.from_pretrained(tmp_path / p).state_dict() for p in ("third", "ours"))
    assert all(torch.equal(third[key], first[key]) for key in first)


def test_real_photos_through_a_real_model_of_either_library(shared_dir, tmp_path):
    """clip-small goes to open_clip's form; the network built here loads it and sees the same in photos."""
    from datasets import load_dataset

    source = shared_dir / "models" / "clip-small"
    convert(source, tmp_path / "theirs", to="open_clip")
    cfg = json.loads((tmp_path / "theirs" / "open_clip_config.json").read_text())
    vision, text = cfg["model_cfg"]["vision_cfg"], cfg["model_cfg"]["text_cfg"]
    theirs = oracle(
        size=vision["image_size"],
        patch=vision["patch_size"],
        width=vision["width"],
        layers=vision["layers"],
        text_width=text["width"],
        text_layers=text["layers"],
        vocab=text["vocab_size"],
        context=text["context_length"],
        projection=cfg["model_cfg"]["embed_dim"],
        quick=cfg["model_cfg"]["quick_gelu"],
        eos=text["eos_id"] if text["pool_type"] == "eos" else None,
    )
    state = load_file(tmp_path / "theirs" / "open_clip_model.safetensors")
    assert {tensor.dtype for tensor in state.values()} == {torch.float16}  # as it was stored
    theirs.load_state_dict(state)
    stock, processor = (
        AutoModel.from_pretrained(source, dtype=torch.float32),
        AutoProcessor.from_pretrained(source),
    )
    rows = load_dataset(
        "parquet", data_files=str(shared_dir / "data/cifar100/test.parquet"), split="train[:8]"
    )
    inputs = processor(
        images=list(rows["image"]),
        text=["a photo of an apple.", "a photo of a fox."],
        padding="max_length",
        return_tensors="pt",
    )
    with torch.no_grad():
        out = stock(pixel_values=inputs.pixel_values, input_ids=inputs.input_ids)
        image = torch.nn.functional.normalize(theirs.encode_image(inputs.pixel_values))
        words = torch.nn.functional.normalize(theirs.encode_text(inputs.input_ids))
    assert (out.image_embeds - image).abs().max() < 1e-5 and (out.text_embeds - words).abs().max() < 1e-5
    convert(tmp_path / "theirs", tmp_path / "back")
    first, back = (AutoModel.from_pretrained(path).state_dict() for path in (source, tmp_path / "back"))
    assert all(torch.equal(first[key], back[key]) and back[key].dtype == torch.float16 for key in first)
