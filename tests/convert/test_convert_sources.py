"""What convert takes: files as training scripts save them, towers alone, checkpoints without a processor."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch
from open_clip_oracle import config_of, oracle
from safetensors.torch import save_file
from transformers import AutoModel, AutoProcessor, CLIPModel

from hf_hierrobust.cli.main import main
from hf_hierrobust.modeling.open_clip import WeightsError
from hf_hierrobust.runs.convert import convert
from hf_hierrobust.runs.evaluate import evaluate

TOWER = {"size": 32, "patch": 8, "width": 64, "layers": 2, "projection": 32}


@pytest.fixture(scope="module")
def vocabulary(tiny_clip_dir) -> int:
    return AutoModel.from_pretrained(tiny_clip_dir).config.text_config.vocab_size


@pytest.fixture(scope="module")
def whole(vocabulary):
    return oracle(**TOWER, vocab=vocabulary, context=16)


WRAPPINGS = {
    "bare, as RobustVLM and Sim-CLIP save it": lambda state: state,
    "with the prompter and the optimiser beside it": lambda state: {
        "epoch": 3,
        "state_dict": {},
        "vision_encoder_state_dict": state,
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-5}]},
    },
    "of DataParallel": lambda state: {"state_dict": {f"module.model.{k}": v for k, v in state.items()}},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_an_image_tower_alone_takes_the_text_tower_of_its_base(wrapping, whole, tiny_clip_dir, tmp_path):
    torch.save(WRAPPINGS[wrapping](whole.visual.state_dict()), tmp_path / "fare.pt")
    convert(tmp_path / "fare.pt", tmp_path / "out", base=tiny_clip_dir)
    ours, report = CLIPModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    base = CLIPModel.from_pretrained(tiny_clip_dir)
    assert not any(report.values())
    pixels = torch.randn(2, 3, 32, 32)
    ids = AutoProcessor.from_pretrained(tmp_path / "out").tokenizer(["a cat"], return_tensors="pt").input_ids
    with torch.no_grad():
        image = ours.get_image_features(pixel_values=pixels).pooler_output
        assert (image - whole.encode_image(pixels)).abs().max() < 1e-5  # quick_gelu, as the base
        texts = [model.get_text_features(input_ids=ids).pooler_output for model in (ours, base)]
    assert torch.equal(*texts) and torch.equal(ours.logit_scale, base.logit_scale)
    processor = AutoProcessor.from_pretrained(tmp_path / "out").image_processor
    assert processor.image_mean == AutoProcessor.from_pretrained(tiny_clip_dir).image_processor.image_mean
    json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())  # for older transformers


def test_a_dropped_visual_prompt_is_named(whole, tiny_clip_dir, tmp_path, caplog):
    import logging

    logging.getLogger("transformers").propagate = True
    state = {"vision_encoder_state_dict": whole.visual.state_dict(), "state_dict": {"pad_up": torch.ones(3)}}
    torch.save(state, tmp_path / "tga.pth")
    convert(tmp_path / "tga.pth", tmp_path / "out", base=tiny_clip_dir)
    assert "'state_dict' beside it (1 tensors, first 'pad_up') is not" in caplog.text


@pytest.mark.parametrize("kind", ["bin", "custom text", "halves"])
def test_a_repository_with_both_towers(kind, whole, tiny_clip_dir, tmp_path):
    folder = tmp_path / "repository"
    folder.mkdir()
    state = {k: v.half() if kind == "halves" and "ln_" not in k else v for k, v in whole.state_dict().items()}
    if kind == "custom text":
        outside = ("visual.", "logit_scale")
        state = {k if k.startswith(outside) else f"text.{k}": v for k, v in state.items()}
    if kind == "halves":  # OpenAI's file: constants beside the weights
        state["input_resolution"] = torch.tensor(32)
    torch.save(state, folder / "open_clip_pytorch_model.bin")
    preprocess = {
        "mean": [0.1, 0.2, 0.3],
        "std": [1, 2, 3],
        "interpolation": "bilinear",
        "resize_mode": "squash",
    }
    config = {"model_cfg": config_of(whole, True), "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    main(["convert", str(folder), "-o", str(tmp_path / "out"), "--base", tiny_clip_dir])
    ours = CLIPModel.from_pretrained(tmp_path / "out")
    expected = {k: v.float() for k, v in state.items()}
    proj = "text.text_projection" if kind == "custom text" else "text_projection"
    assert torch.equal(ours.text_projection.weight, expected[proj].T) and ours.dtype == torch.float32
    images = AutoProcessor.from_pretrained(tmp_path / "out").image_processor
    assert (
        list(images.image_mean) == [0.1, 0.2, 0.3] and int(images.resample) == 2 and not images.do_center_crop
    )
    main(["convert", str(tmp_path / "out"), "-o", str(tmp_path / "back"), "--to", "open_clip"])
    back = json.loads((tmp_path / "back" / "open_clip_config.json").read_text())
    assert back["preprocess_cfg"] == preprocess


def test_robust_weights_of_transformers_without_a_processor(tiny_clip_dir, tiny_images, tmp_path):
    """As LEAF is published: the model alone. Its base's processor serves, converted or not."""
    bare = tmp_path / "leaf"
    CLIPModel.from_pretrained(tiny_clip_dir).save_pretrained(bare)
    with pytest.raises(ValueError, match="has no processor: give as base"):
        convert(bare, tmp_path / "out")
    convert(bare, tmp_path / "out", base=tiny_clip_dir)
    options = {"attack": "pgd-ce", "num_steps": 1, "progress": False}
    records = [
        evaluate(bare, tiny_images, processor=tiny_clip_dir, **options),
        evaluate(tmp_path / "out", tiny_images, **options),
        evaluate(tiny_clip_dir, tiny_images, **options),
    ]
    assert len({(r[0].clean_accuracy, r[0].robust_accuracy, r[0].model_hash) for r in records}) == 1
    with pytest.raises(ValueError, match="whole checkpoint of transformers"):
        convert(tiny_clip_dir, tmp_path / "again")


class Bomb:
    def __reduce__(self):
        import os

        return os.system, ("touch bomb",)


def _bytes(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04 cut")


def _saved(change):
    """A weights file whose state dict was changed."""

    def write(path: Path, whole) -> None:
        state = dict(whole.state_dict())
        change(state)
        torch.save(state, path)

    return write


HOSTILE = {
    "code": (lambda p, w: torch.save({"visual.conv1.weight": Bomb()}, p), "asks to run .*system"),
    "argparse": (
        lambda p, w: torch.save({"args": argparse.Namespace()}, p),
        "asks to run argparse.Namespace",
    ),
    "cut": (lambda p, w: _bytes(p), "cannot be read"),
    "empty": (lambda p, w: p.write_bytes(b""), "cannot be read"),
    "list": (lambda p, w: torch.save([torch.ones(1)], p), "holds a list, not a state dict"),
    "script": (lambda p, w: torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), p), "TorchScript"),
    "nothing": (lambda p, w: torch.save({}, p), "no image tower"),
    "missing": (_saved(lambda s: s.pop("visual.ln_post.bias")), "lacks 'visual.ln_post.bias'"),
    "missing block": (
        _saved(lambda s: [s.pop(k) for k in list(s) if "visual.transformer.resblocks.0" in k]),
        "lacks visual.transformer.resblocks.0",
    ),
    "shape": (
        _saved(lambda s: s.update({"visual.proj": torch.ones(63, 32)})),
        r"visual.proj has shape \(63, 32\)",
    ),
    "dimensions": (_saved(lambda s: s.update({"visual.conv1.weight": torch.ones(3)})), "4 dimensions"),
    "grid": (
        _saved(lambda s: s.update({"visual.positional_embedding": torch.ones(16, 64)})),
        "not one for the class and a square",
    ),
    "unknown": (_saved(lambda s: s.update({"visual.extra": torch.ones(1)})), "holds 'visual.extra'"),
    "timm": (_saved(lambda s: s.update({"visual.trunk.norm.weight": torch.ones(1)})), "tower of timm"),
    "bert": (_saved(lambda s: s.update({"text.transformer.embeddings.x": torch.ones(1)})), "text tower of"),
    "siglip": (_saved(lambda s: s.update({"logit_bias": torch.ones(1)})), "bias of the logits"),
    "nan": (_saved(lambda s: s["visual.proj"].fill_(float("nan"))), "not finite"),
    "integers": (_saved(lambda s: s.update({"visual.proj": torch.ones(64, 32).int()})), "floating-point"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_weights_are_refused_in_one_line_and_nothing_is_written(
    case, vocabulary, tiny_clip_dir, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write, words = HOSTILE[case]
    write(tmp_path / "weights.pt", oracle(**TOWER, vocab=vocabulary, context=16))
    with pytest.raises(WeightsError, match=words) as caught:
        convert("weights.pt", "out", base=tiny_clip_dir)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pt"]


CONFIGS = {
    "of another model": ({"vision_cfg": {"layers": 12}}, "says vision_cfg.layers=12, its tensors 2"),
    "timm": ({"vision_cfg": {"timm_model_name": "vit"}}, "timm_model_name='vit'"),
    "pooling": ({"vision_cfg": {"pool_type": "avg"}}, "pool_type='avg'"),
    "end": ({"text_cfg": {"pool_type": "eos", "eos_id": 5}}, "pools a text at its token 5"),
    "no object": ({"vision_cfg": 3}, "must be an object"),
    "heads": ({"vision_cfg": {"head_width": 0}}, "must be an integer >= 1"),
    "activation": ({"quick_gelu": "yes"}, "must be true or false"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_configs_that_say_something_else_are_refused(case, whole, tiny_clip_dir, tmp_path):
    config, words = CONFIGS[case]
    folder = tmp_path / "repository"
    folder.mkdir()
    save_file(whole.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with pytest.raises(WeightsError if case != "end" else ValueError, match=words):
        convert(folder, tmp_path / "out", base=tiny_clip_dir)
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_asked_for(whole, tiny_clip_dir, shared_dir, tmp_path, capsys):
    torch.save(whole.visual.state_dict(), tmp_path / "tower.pt")
    torch.save(whole.state_dict(), tmp_path / "whole.pt")
    real = shared_dir / "models" / "clip-tokenizer"
    for source, options, words in (
        ("tower.pt", {}, "has no tokenizer: give base"),
        ("tower.pt", {"base": real, "activation": "gelu"}, "image tower alone: give as base the whole CLIP"),
        ("whole.pt", {"base": real}, "does not say its activation"),
        (
            "whole.pt",
            {"base": real, "activation": "gelu"},
            "vocabulary of .* tokens, the tokenizer one of 49408",
        ),
        ("none.pt", {"base": real}, "is not there"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=words):
            convert(tmp_path / source, tmp_path / "out", **options)
    with pytest.raises(SystemExit):
        main(["convert", str(tmp_path / "nowhere.pt"), "-o", str(tmp_path / "out")])
    assert "is not there" in capsys.readouterr().err
    convert(tmp_path / "whole.pt", tmp_path / "out", base=tiny_clip_dir)
    with pytest.raises(FileExistsError, match=r"already holds config\.json"):
        convert(tmp_path / "whole.pt", tmp_path / "out", base=tiny_clip_dir)
    assert not list(tmp_path.glob(".out*"))


def test_the_real_vocabulary_makes_the_real_special_tokens(shared_dir, tmp_path):
    whole = oracle(**TOWER, quick=False)
    save_file(whole.state_dict(), tmp_path / "whole.safetensors")
    real = shared_dir / "models" / "clip-tokenizer"
    convert(tmp_path / "whole.safetensors", tmp_path / "out", base=real, activation="gelu")
    config = CLIPModel.from_pretrained(tmp_path / "out").config.text_config
    assert (config.bos_token_id, config.eos_token_id, config.hidden_act) == (49406, 49407, "gelu")
    ids = AutoProcessor.from_pretrained(tmp_path / "out").tokenizer("a photo of a cat.").input_ids
    assert ids == [49406, 320, 1125, 539, 320, 2368, 269, 49407]
