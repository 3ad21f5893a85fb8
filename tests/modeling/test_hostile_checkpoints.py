"""Checkpoints of people who wish harm: refused with one line, and nothing of theirs runs or is written."""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
import struct
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_hierrobust.modeling import RobustCLIPModel, load_processor, load_robust_model


class Bomb:
    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture(scope="module")
def saved(tiny_clip_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    model = RobustCLIPModel.from_pretrained(tiny_clip_dir)
    model.hier_head.grow(3)
    with torch.no_grad():
        model.hier_head.kappa.fill_(20.0)
        model.hier_head.vic_radius.fill_(1.0)
    model.save_pretrained(folder)
    for name in ("processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(f"{tiny_clip_dir}/{name}", folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "repo" / "model")


def change_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(call, folder, words, error=ValueError):
    """The call fails with one line, and leaves nothing new anywhere near the folder."""
    before = sorted(folder.parent.parent.rglob("*"))
    with pytest.raises(error, match=words) as caught:
        call(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 900
    assert sorted(folder.parent.parent.rglob("*")) == before


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "hier_head.safetensors"])
@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_a_pickle_named_as_weights_is_never_unpickled(folder, tmp_path, name, form):
    bomb = Bomb()
    bomb.path = str(tmp_path / "ran")
    if name != "hier_head.safetensors":
        (folder / "model.safetensors").unlink()
    if form == "torch":
        torch.save({"logit_scale": bomb}, folder / name)
    else:
        (folder / name).write_bytes(pickle.dumps(bomb))
    refused(load_robust_model, folder, "corrupt|not what their name says")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "processor_config.json"])
def test_auto_map_is_refused_and_its_code_not_imported(folder, tmp_path, name):
    ran = tmp_path / "ran"
    (folder / "code.py").write_text(f"import os\nos.mkdir({str(ran)!r})\n")
    auto_map = {
        "AutoConfig": "code.X",
        "AutoModel": "code.X",
        "AutoProcessor": "code.X",
        "AutoTokenizer": ["code.X"] * 2,
    }
    changes = {"model_type": "mine"} if name == "config.json" else {}
    change_json(folder / name, auto_map=auto_map, **changes)
    refused(load_robust_model if name == "config.json" else load_processor, folder, f"{name} has auto_map")
    assert not ran.exists()


@pytest.mark.parametrize("option", [{"trust_remote_code": True}, {"weights_only": False}])
def test_nobody_can_ask_for_code_to_be_run(folder, option):
    refused(lambda path: load_robust_model(path, **option), folder, "never done here")


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    ("text", "words"),
    [("[" * 200_000, "nests too deeply"), ('{"a": ' * 200_000, "nests too deeply"), ("[]", "no JSON object"),
     ("{", "is not JSON"), (" " * (65 << 20), "larger than"), ('{"a": 1, "a": 2}', "duplicate key")],
    ids=["list", "mapping", "no mapping", "cut", "endless", "twice"],
)  # fmt: skip
def test_settings_that_no_program_writes(folder, name, text, words):
    (folder / name).write_text(text)
    refused(load_robust_model if name == "config.json" else load_processor, folder, words)


@pytest.mark.parametrize(
    "part", ["../../secret.safetensors", "/etc/passwd", "pytorch_model.bin", "..\\x", 3, ["a"], ""]
)
def test_an_index_names_parts_beside_it_only(folder, part):
    (folder / "model.safetensors").rename(folder.parent / "secret.safetensors")
    index = {"metadata": {}, "weight_map": {"logit_scale": part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(load_robust_model, folder, "which is no part such as")


def test_an_adapter_cannot_redirect_to_other_weights(folder):
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/somewhere/else"}')
    refused(load_robust_model, folder, r"has adapter_config\.json beside its config\.json")


@pytest.mark.parametrize(
    ("tower", "changes"),
    [("vision_config", {"image_size": 10**6}), ("text_config", {"num_hidden_layers": 10**9}),
     ("text_config", {"vocab_size": 1e12}), ("vision_config", {"hidden_size": -1}),
     ("vision_config", {"patch_size": 0}), ("vision_config", {"num_hidden_layers": "2"}),
     ("text_config", {"num_attention_heads": [4]}), ("text_config", {"hidden_size": True})],
)  # fmt: skip
def test_a_config_of_a_few_bytes_cannot_ask_for_all_memory(folder, tower, changes):
    config = json.loads((folder / "config.json").read_text())
    change_json(folder / "config.json", **{tower: config[tower] | changes})
    refused(load_robust_model, folder, f"has {next(iter(changes))}=.*are allowed")


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"text_levels": 10**9}, r"text_levels='1000000000' must be a whole number"),
        ({"text_levels": 0}, "text_levels"),
        ({"text_levels": True}, "text_levels"),
        ({"text_levels": 2.5}, "text_levels"),
        ({"curvature": "1"}, "curvature='1' must be a number"),
        ({"curvature": math.nan}, "curvature"),
        ({"curvature": math.inf}, "curvature"),
        ({"curvature": -1}, "curvature=-1"),
        ({"max_tangent_norm": 1e300}, "max_tangent_norm"),
        ({"ball_margin": 1.0}, "ball_margin"),
        ({"visual_prompt": {"tokens": 10**9}}, r"visual_prompt\.tokens"),
        ({"visual_prompt": {"border": 10**9}}, "border"),
        ({"visual_prompt": {"device": "cuda"}}, "visual_prompt='device'"),
        ({"visual_prompt": 3}, "visual_prompt"),
        ({"trees": [{"name": "../../x"}]}, "name='../../x'"),
        ({"trees": "abc"}, "trees"),
        ({"template": "no place"}, "template"),
        ({"template": "a\n{}"}, "template"),
        ({"objective": {"a": 1}}, "objective"),
        ({"objective_args": [1]}, "objective_args"),
    ],
)
def test_facts_are_of_the_kinds_and_sizes_a_model_is_built_from(folder, facts, words):
    config = json.loads((folder / "config.json").read_text())
    change_json(folder / "config.json", hier_robust=config["hier_robust"] | facts)
    refused(load_robust_model, folder, words)


def test_facts_that_are_no_mapping(folder):
    change_json(folder / "config.json", hier_robust=["a"])
    refused(load_robust_model, folder, "config.hier_robust is a list")


def test_weights_of_other_shapes_than_the_config(folder):
    path = folder / "model.safetensors"
    save_file(load_file(path) | {"logit_scale": torch.zeros(7)}, path, metadata={"format": "pt"})
    refused(load_robust_model, folder, "the weights of .* are not what")


@pytest.mark.parametrize("value", [[1], "x", 3])
def test_a_tower_that_is_no_mapping(folder, value):
    change_json(folder / "config.json", vision_config=value)
    refused(load_robust_model, folder, "vision_config is no JSON object")


def head_with(**tensors):
    return lambda state: state | tensors


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (head_with(log_text_scale=torch.zeros(2)), "size mismatch for log_text_scale"),
        (head_with(log_text_scale=torch.zeros(3, 1)), "size mismatch for log_text_scale"),
        (head_with(log_text_scale=torch.tensor([0.0, math.nan, 0.0])), "log_text_scale=nan is not in"),
        (head_with(log_text_scale=torch.tensor([0.0, 0.0, 1e30])), r"log_text_scale=1e\+30"),
        (head_with(log_image_scale=torch.tensor(math.inf)), "log_image_scale=inf"),
        (head_with(log_image_scale=torch.tensor(-math.inf)), "log_image_scale=-inf"),
        (head_with(kappa=torch.tensor(math.inf)), "kappa=inf"),
        (head_with(kappa=torch.tensor(-1.0)), "kappa=-1"),
        (head_with(kappa=torch.tensor(1e30)), r"kappa=1e\+30"),
        (head_with(vic_radius=torch.tensor(-0.5)), "vic_radius=-0.5"),
        (head_with(curvature=torch.tensor(math.nan)), "curvature=nan"),
        (head_with(curvature=torch.tensor(3.0)), "curvature 3"),
        (head_with(kappa=torch.tensor(20)), "int64, not floating-point"),
        (head_with(kappa=torch.tensor(1j)), "complex64, not floating-point"),
        (head_with(more=torch.zeros(1)), "Unexpected key"),
        (head_with(more=torch.zeros(300_000)), "far more than its tensors need"),
        (lambda state: {"kappa": state["kappa"]}, "Missing key"),
    ],
)
def test_a_side_file_holds_what_training_writes_and_nothing_else(folder, change, words):
    path = folder / "hier_head.safetensors"
    save_file(change(load_file(path)), path)
    refused(load_robust_model, folder, words)
    assert not load_robust_model(folder, hier_head=False).hier_head.calibrated


def test_a_head_that_is_announced_must_be_there(folder):
    assert load_robust_model(folder).hier_head.text_levels == 3
    (folder / "hier_head.safetensors").unlink()
    refused(load_robust_model, folder, "config announces a hyperbolic head, but the file is not there")


def test_a_readme_is_text_whatever_its_bytes_and_its_tags(folder):
    (folder / "README.md").write_bytes(b"---\nx: !!python/object/apply:os.abort []\n---\n\xff\xfe text")
    model = load_robust_model(folder)
    assert model.card_text.startswith("---\nx: !!python") and model.card_text.endswith("text")


def test_a_tokenizer_that_is_no_tokenizer(folder):
    (folder / "tokenizer.json").write_text('{"model": ' * 300 + "1" + "}" * 300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refused(load_processor, folder, "the processor of .* cannot be loaded")


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "experts_implementation"])
@pytest.mark.parametrize("value", ["evil/kernel", "evil/kernel@v1:forward", {"vision_config": "evil/kernel"}])
def test_a_config_cannot_ask_for_a_kernel_of_a_repository(folder, key, value):
    tower = json.loads((folder / "config.json").read_text())["vision_config"]
    change_json(folder / "config.json", vision_config=tower | {key: value})
    refused(load_robust_model, folder, f"config.json has {key}=.*evil/kernel.*is never run here")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": {"shortest_edge": 10**6}}, "shortest_edge=1000000: 1 to 4,096"),
        ({"crop_size": {"height": 0, "width": 32}}, "height=0"),
        ({"crop_size": {"height": "32", "width": 32}}, "height='32': 1 to"),
        ({"image_mean": [0.5]}, r"image_mean=.0\.5.* must be three"),
        ({"image_mean": [0.5, 0.5, math.nan]}, "image_mean"),
        ({"image_std": [0.5, 0, 0.5]}, "image_std"),
        ({"image_std": [0.5, -1, 0.5]}, "image_std"),
        ({"image_std": math.inf}, "image_std=inf"),
        ({"image_processor_type": "subprocess.Popen"}, "is no image processor"),
        ({"image_processor_type": "AutoModel"}, "is no image processor"),
        ({"a": [{"auto_map": {"AutoProcessor": "code.X"}}]}, "has auto_map"),
    ],
)
def test_a_processor_of_whoever_wrote_it(folder, changes, words):
    settings = json.loads((folder / "processor_config.json").read_text())["image_processor"]
    change_json(folder / "processor_config.json", image_processor=settings | changes)
    refused(load_processor, folder, words)


def test_classes_and_options_may_have_the_names_of_settings(folder):
    config = json.loads((folder / "config.json").read_text())
    named = {"width": 0, "height": 1, "auto_map": 2, "image_size": 3}
    ours = config.get("hier_robust", {}) | {"objective_args": {"width": 0.5}}
    change_json(folder / "config.json", label2id=named, id2label=dict(enumerate(named)), hier_robust=ours)
    assert load_robust_model(folder).config.label2id["width"] == 0


def test_weights_that_are_not_all_there_are_not_made_up(folder):
    path = folder / "model.safetensors"
    save_file({"logit_scale": load_file(path)["logit_scale"]}, path, metadata={"format": "pt"})
    refused(load_robust_model, folder, "lack 77 of the model's tensors")


@pytest.mark.parametrize(
    "header",
    [
        struct.pack("<Q", 1 << 62) + b"{}",
        b'{"logit_scale": {"dtype": "F32", "shape": [1099511627776], "data_offsets": [0, 4398046511104]}}',
        b'{"logit_scale": {"dtype": "F32", "shape": [1099511627776, 16777217], "data_offsets": [0, 4]}}',
        b'{"logit_scale": {"dtype": "F32", "shape": [], "data_offsets": [-4, 0]}}',
    ],
    ids=["length", "size", "overflow", "offsets"],
)
@pytest.mark.parametrize("name", ["model.safetensors", "hier_head.safetensors"])
def test_a_header_cannot_announce_what_is_not_there(folder, name, header):
    length = b"" if header.startswith(b"\0") else struct.pack("<Q", len(header))
    (folder / name).write_bytes(length + header)
    refused(load_robust_model, folder, "are not what|is corrupt")
