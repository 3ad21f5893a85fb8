"""`hf-hierrobust push DIR REPO`: what arrives, where, and what a push that broke leaves behind."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from test_hub_card import make_facts, make_record
from tiny_data import PATHS
from transformers import AutoModel

from hf_hierrobust.adapters.lora import add_lora, lora_config
from hf_hierrobust.evaluation.record_files import save_records
from hf_hierrobust.hierarchy import LabelTree
from hf_hierrobust.hub import check_folder, push_folder, write_card
from hf_hierrobust.modeling import RobustCLIPModel
from hf_hierrobust.uploads import public_files

PUSH = """
from hf_hierrobust.cli.main import main

for argv in {commands!r}:
    try:
        main(argv)
        report(0)
    except SystemExit as error:
        report(error.code)
"""


def write_run(folder, base, *, name_or_path="tester/base", lora=True, **sizes):
    """A run's folder with merged weights, adapter, tree, records and card, and what must not leave it."""
    model = RobustCLIPModel.from_pretrained(base)
    model.name_or_path = name_or_path
    if lora:
        add_lora(model, lora_config(("vision",), r=2))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_()
    tree = LabelTree.from_paths(PATHS, name="tiny", source="from /home/me/secret/tree.py")
    model.config.hier_robust = {"trees": [{"name": "tiny", "hash": tree.hash, "sizes": list(tree.sizes)}]}
    model.save_pretrained(folder, **sizes)
    for file in ("processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(f"{base}/{file}", folder)
    (folder / "tiny.tree.json").write_text(json.dumps(tree.to_json()))
    save_records(folder / "results.json", [make_record()])
    (folder / "training_args.bin").write_bytes(b"private")
    write_card(folder, make_facts(records=[make_record()]))
    return folder


@pytest.fixture(scope="module")
def run(tiny_clip_dir, tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("whole") / "run", tiny_clip_dir)


@pytest.fixture(scope="module")
def sharded(tiny_clip_dir, tmp_path_factory):
    return write_run(
        tmp_path_factory.mktemp("sharded") / "run", tiny_clip_dir, lora=False, max_shard_size="40KB"
    )


def test_the_command_pushes_everything_and_replaces_what_is_old(hub, run_client, run, sharded, tmp_path):
    hub.add_repo("other/model", {"README.md": b"Not mine.\n"})
    whole = [str(run), "robust"]
    client = run_client(
        hub,
        PUSH.format(
            commands=[
                ["push", *whole, "--private"],
                ["push", *whole],
                ["push", str(run), "other/model", "--create_pr"],
                ["push", str(run), "other/model"],
                ["push", str(sharded), "tester/robust", "--revision", "sharded"],
                ["push", str(tmp_path), "robust"],
            ]
        ),
        tmp_path,
    )
    assert client.reports == [0, 0, 0, 2, 0, 2], client.stderr
    repo = hub.repos["tester/robust"]
    assert repo.private and len(repo.commits) == 2, "the second push has nothing to say"
    assert set(repo.files) == {*public_files(run), ".gitattributes"}
    assert {"adapter/adapter_model.safetensors", "tiny.tree.json", "results.json"} <= set(repo.files)
    assert not any(b"/home/me" in blob.content for blob in repo.files.values())
    assert LabelTree.from_json(json.loads(repo.files["tiny.tree.json"].content)).source == "from tree.py"

    errors = [line for line in client.stderr.splitlines() if "error:" in line]
    assert len(errors) == 2 and "HTTP 403" in errors[0] and "no config.json" in errors[1]
    other = hub.repos["other/model"]
    assert list(other.files) == ["README.md"] and "pull request http" in client.stdout
    _, proposed = other.at("refs/pr/1")
    assert "model.safetensors" in proposed and "Not mine." in proposed["README.md"].content.decode()

    # The branch started as main, with whole weights and an adapter that the new weights do not have.
    _, files = repo.at("sharded")
    assert set(files) == {*public_files(sharded), ".gitattributes"}
    assert "model.safetensors" not in files and "model.safetensors.index.json" in files
    assert not any(name.startswith("adapter/") for name in files)


BREAK = """
from hf_hierrobust.hub import push_folder

for _ in range(3):
    try:
        report(push_folder({folder!r}, "broken").oid)
    except ConnectionError as error:
        report(str(error))
"""


def test_a_push_that_breaks_leaves_nothing_half_and_can_be_repeated(hub, run_client, run, tmp_path):
    hub.fail("POST", "/commit/main", status=500, times=1)
    hub.fail("POST", "/commit/main", after=100, times=1)
    first, second, third = run_client(hub, BREAK.format(folder=str(run)), tmp_path).reports
    repo = hub.repos["tester/broken"]
    for said in (first, second):
        assert "broke off" in said and "push again" in said and "\n" not in said
    assert third == repo.head and [m for _, m, _ in repo.commits] == [
        "initial commit",
        "Upload robust CLIP checkpoint",
    ]
    puts = [path for method, path, status in hub.log if method == "PUT"]
    assert len(puts) == len(set(puts)), "what had arrived was not sent again"


def test_shards_are_checked_before_anything_is_sent(sharded, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(sharded, folder)
    assert check_folder(folder) == folder
    parts = sorted(path.name for path in folder.glob("model-*.safetensors"))
    assert len(parts) > 1
    (folder / parts[-1]).rename(folder / "part.safetensors")
    with pytest.raises(FileNotFoundError, match=parts[-1]):
        check_folder(folder)
    index = folder / "model.safetensors.index.json"
    entries = json.loads(index.read_text())
    entries["weight_map"]["logit_scale"] = "../../part.safetensors"
    index.write_text(json.dumps(entries))
    with pytest.raises(ValueError, match=r"names '\.\./\.\./part\.safetensors'"):
        check_folder(folder)
    shutil.copy(folder / parts[0], folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"has both model\.safetensors and"):
        check_folder(folder)


@pytest.mark.parametrize("kind", ["link", "token", "own token", "pickle", "code"])
def test_what_must_not_leave_is_refused_and_named(run, tmp_path, monkeypatch, kind):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    secret = tmp_path / "secret.json"
    if kind == "link":
        secret.write_text("{}")
        (folder / "results.json").unlink()
        (folder / "results.json").symlink_to(secret)
        named = "results.json is a link that leads out of run"
    elif kind == "token":
        card = folder / "README.md"
        card.write_text(card.read_text() + "\nhf_" + "aB3" * 12 + "\n")
        named = "README.md holds an access token"
    elif kind == "own token":
        monkeypatch.setenv("HF_TOKEN", "an-unusual-token")
        path = folder / "tiny.tree.json"
        path.write_text(path.read_text().replace("tree.py", "an-unusual-token"))
        named = "tiny.tree.json holds an access token"
    elif kind == "pickle":
        torch.save({"a": torch.zeros(1)}, folder / "model.safetensors")
        named = "model.safetensors is no safetensors file"
    else:
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoTokenizer": "x.X"}}))
        named = "tokenizer_config.json has auto_map"
    with pytest.raises(ValueError, match=named) as caught:
        push_folder(folder, "robust", token="hf_unused")
    assert "\n" not in str(caught.value)


def test_sharded_weights_load_as_whole_ones_do(sharded, tiny_clip_dir):
    loaded = AutoModel.from_pretrained(sharded).state_dict()
    base = load_file(f"{tiny_clip_dir}/model.safetensors")
    assert all(torch.equal(loaded[key], base[key]) for key in base)
