"""Commands on repositories of people who wish harm: one line each, and nothing runs or is written outside."""

from __future__ import annotations

import json
import math
import os
import pickle
import struct
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load, save

from hf_hierrobust.modeling import RobustCLIPModel

COMMANDS = """
from pathlib import Path
from huggingface_hub import hf_hub_download
from hf_hierrobust.cli.main import main

def attempt(*argv):
    try:
        main([str(word) for word in argv])
        report([0, ""])
    except SystemExit as error:
        report([error.code, str(argv)])

attack = ["attack", "image.png", "--labels", "cat, dog"]
attempt(*attack, "--model", "nice/model", "-o", "nice")
for name in {models!r}:
    attempt(*attack, "--model", f"evil/{{name}}", "-o", "out")
for name in {trees!r}:
    attempt("tree", "show", hf_hub_download("evil/trees", name))
attempt("train", "--config", hf_hub_download("evil/trees", "run.yaml"))
"""


class Bomb:
    """Makes a folder where it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def safetensors_header(tensors: dict) -> bytes:
    """A file that announces these tensors and ends there."""
    header = json.dumps(tensors).encode()
    return struct.pack("<Q", len(header)) + header


def hostile_repositories(nice: dict[str, bytes], ran: Path) -> dict[str, dict[str, bytes]]:
    config, head = json.loads(nice["config.json"]), load(nice["hier_head.safetensors"])
    bomb = pickle.dumps({"logit_scale": Bomb(ran)})
    auto_map = dict.fromkeys(("AutoConfig", "AutoModel", "AutoProcessor"), "code.X")
    code = nice | {"code.py": f"import os\nos.mkdir({str(ran)!r})\n".encode()}
    no_weights = {name: blob for name, blob in nice.items() if name != "model.safetensors"}
    parts = {"metadata": {}, "weight_map": {"logit_scale": "../../../../secret.safetensors"}}
    header = {"logit_scale": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}
    facts = {"hier_robust": config["hier_robust"] | {"text_levels": 10**9}}
    scale = head["log_text_scale"]

    def as_json(value: dict) -> bytes:
        return json.dumps(value).encode()

    return {
        "pickle": nice | {"model.safetensors": bomb},
        "bin": no_weights | {"pytorch_model.bin": bomb},
        "head-pickle": nice | {"hier_head.safetensors": bomb},
        "auto-map": code | {"config.json": as_json(config | {"auto_map": auto_map})},
        "own-type": code | {"config.json": as_json({"model_type": "mine", "auto_map": auto_map})},
        "processor": code | {"processor_config.json": as_json({"auto_map": auto_map})},
        "nested": nice | {"config.json": b'{"a":' * 100_000},
        "index": no_weights | {"model.safetensors.index.json": as_json(parts)},
        "adapter": nice | {"adapter_config.json": b'{"base_model_name_or_path": "evil/pickle"}'},
        "shapes": nice | {"hier_head.safetensors": save(head | {"log_text_scale": torch.zeros(5)})},
        "infinite": nice | {"hier_head.safetensors": save(head | {"log_text_scale": scale * math.inf})},
        "kernel": nice | {"config.json": as_json(config | {"attn_implementation": "evil/kernel"})},
        "header": nice | {"model.safetensors": safetensors_header(header)},
        "lacking": nice | {"model.safetensors": save(head)},
        "image-class": nice
        | {"processor_config.json": as_json({"image_processor_type": "subprocess.Popen"})},
        "levels": nice | {"config.json": as_json(config | facts)},
    }


TREES = {
    "cycle.json": json.dumps({"a": ["b", "a"], "c": ["b", "a"], "b": ["a", "c"]}).encode(),
    "nested.json": b"[" * 200_000,
    "path.json": json.dumps({"name": "../../x", "paths": {"a": ["c"], "b": ["c"]}}).encode(),
    "twice.json": b'{"cat": ["animal"], "cat": ["plant"], "dog": ["plant"]}',
    "large.json": b'{"a": ["' + b"x" * (100 << 20) + b'"]}',
}
YAML = "output_dir: out\nseed: !!python/object/apply:os.mkdir ['{ran}']\n"


@pytest.mark.slow
def test_hostile_repositories_are_refused_with_one_line(hub, run_client, tiny_clip_dir, tmp_path):
    model = RobustCLIPModel.from_pretrained(tiny_clip_dir)
    model.save_pretrained(tmp_path / "saved")
    names = ("processor_config.json", "tokenizer.json", "tokenizer_config.json")
    nice = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    nice |= {name: (Path(tiny_clip_dir) / name).read_bytes() for name in names}
    ran = tmp_path / "ran"
    tag = f"---\nlicense: !!python/object/apply:os.mkdir ['{ran}']\n---\n# A card\n"
    hub.add_repo("nice/model", nice | {"README.md": tag.encode()})
    evil = hostile_repositories(nice, ran)
    for name, files in evil.items():
        hub.add_repo(f"evil/{name}", files)
    hub.add_repo("evil/trees", TREES | {"run.yaml": YAML.format(ran=ran).encode()})
    Image.new("RGB", (32, 32), (200, 60, 60)).save(tmp_path / "image.png")
    before = {path.name for path in tmp_path.iterdir()}

    client = run_client(hub, COMMANDS.format(models=list(evil), trees=list(TREES)), tmp_path)
    (status, _), *refused = client.reports
    assert status == 0, "the honest one works"
    assert [code for code, _ in refused] == [2] * (len(evil) + len(TREES) + 1)
    errors = [line for line in client.stderr.splitlines() if ": error: " in line]
    assert len(errors) == len(refused) and "Traceback" not in client.stderr
    for said, line in zip(
        ("not what", "hold more than tensors", "corrupt", "auto_map", "auto_map", "auto_map", "deeply",
         "no part such as", "adapter_config.json", "size mismatch", "log_text_scale=-inf",
         "attn_implementation", "not what", "lack 78 of", "no image processor", "text_levels",
         "", "deeply", "name='../../x'", "list it once", "larger than", "YAML"),
        errors,
    ):  # fmt: skip
        assert said in line and len(line) < 1000, line
    assert {path.name for path in tmp_path.iterdir()} == before | {"nice", "hf_home", "reports.jsonl"}
