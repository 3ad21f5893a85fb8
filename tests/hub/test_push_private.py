"""Every way of pushing sends what the one allow-list names, and keeps what others wrote into a README."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml
from safetensors.torch import save_file
from test_hub_card import make_facts

from hf_hierrobust.hub import render_card, write_card
from hf_hierrobust.readme import BEGIN, END, merge, own_text, split_header, without_card
from hf_hierrobust.uploads import FILES, public_files, without_paths

OWN = "---\nlicense: cc-by-4.0\ntags:\n- mine\ncustom: 1\n---\n# My own words\n\nKeep *this*.\n"

TRAIN = """
import os, pickle, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from tiny_data import CLASSES, make_images
from tiny_runs import make_trainer

out = Path("run")
out.mkdir()
(out / ".env").write_text("KEY=hf_secret")
(out / "notes.txt").write_text("hf_secret")
(out / "data.pkl").write_bytes(pickle.dumps("hf_secret"))
(out / "README.md").write_text({own!r})
trainer = make_trainer(
    {base!r}, out, max_steps=2, save_steps=1, save_strategy="steps", push_to_hub=True, hub_always_push=True,
    hub_strategy={strategy!r}, hub_model_id="tester/robust", report_to=[],
)
trainer.train()
trainer.{end}
report([sorted(path.name for path in out.iterdir()), Path("run/README.md").read_text()])
"""


@pytest.mark.parametrize(
    ("strategy", "end"),
    [
        ("every_save", "save_state()"),
        ("checkpoint", "save_model()"),
        ("all_checkpoints", "push_to_hub()"),
        ("end", "push_to_hub()"),
    ],
)
def test_kind17_every_way_of_pushing_keeps_private_files_at_home(
    hub, run_client, tiny_clip_dir, tmp_path, pytestconfig, strategy, end
):
    tests = str(pytestconfig.rootpath / "tests")
    code = TRAIN.format(tests=tests, own=OWN, base=tiny_clip_dir, strategy=strategy, end=end)
    ((left, readme),) = run_client(hub, code, tmp_path).reports
    repo = hub.repos["tester/robust"]
    versions = [files for _, _, files in repo.commits]
    everything = {name for files in versions for name in files} - {".gitattributes"}
    prefixes = {"checkpoint": ("last-checkpoint/",), "all_checkpoints": ("checkpoint-1/", "checkpoint-2/")}
    for name in everything:
        prefix = next((p for p in prefixes.get(strategy, ()) if name.startswith(p)), "")
        assert name.removeprefix(prefix) in FILES, name
    assert {f"{p}model.safetensors" for p in prefixes.get(strategy, ())} <= everything
    contents = [blob.content for files in versions for blob in files.values()] + list(hub.lfs_store.values())
    assert not any(b"hf_secret" in content for content in contents)
    assert {".env", "notes.txt", "data.pkl"} <= set(left), "they are the owner's and stay where they are"
    assert "training_args.bin" not in left
    for text in (readme, repo.files["README.md"].content.decode()):
        assert "# My own words\n\nKeep *this*." in text and "tecoa" in text
        header = yaml.safe_load(text.split("---\n")[1])
        assert (header["license"], header["custom"]) == ("cc-by-4.0", 1)
        assert "mine" in header["tags"] and "hf_hierrobust" in header["tags"]


PUSH_MODEL = """
from huggingface_hub import HfApi
from hf_hierrobust import load_robust_model

api = HfApi()
api.create_repo("tester/model")
api.upload_file(path_or_fileobj={own!r}.encode(), path_in_repo="README.md", repo_id="tester/model")
model = load_robust_model({base!r})
model.card_text = {card!r}
model.push_to_hub("tester/model", tags=["more"])
model.push_to_hub("tester/model", tags=["more"])
model.save_pretrained("other", push_to_hub=True, repo_id="tester/other")
"""


def test_kind17_a_model_push_sends_the_list_and_keeps_the_readme_there(
    hub, run_client, tiny_clip_dir, tmp_path
):
    base = tmp_path / "base"
    shutil.copytree(tiny_clip_dir, base)
    (base / ".env").write_text("KEY=hf_secret")
    card = render_card(make_facts())
    run_client(hub, PUSH_MODEL.format(own=OWN, base=str(base), card=card), tmp_path)
    repo = hub.repos["tester/model"]
    assert set(repo.files) <= {".gitattributes", *FILES}
    assert {"model.safetensors", "hier_head.safetensors", "config.json"} <= set(repo.files)
    assert len(repo.commits) == 3, "the second push has nothing to say"
    header, body = split_header(repo.files["README.md"].content.decode())
    assert own_text(repo.files["README.md"].content.decode()) == "# My own words\n\nKeep *this*."
    assert {"mine", "more", "hier_robust"} <= set(header["tags"]) and header["license"] == "mit"
    assert body.index(BEGIN) < body.index(END) < body.index("# My own words")
    assert "README.md" in hub.repos["tester/other"].files


def test_kind17_the_list_names_files_not_suffixes(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"hier_robust": {"trees": [{"name": "../../x"}]}}))
    for name in ("secret.tree.json", "x.tree.json", "model-1.safetensors", "figures/a.png", "figures/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "README.md").write_text("![a](figures/a.png) ![b](figures/../../b.png)")
    save_file({}, tmp_path / "model-00001-of-00002.safetensors")
    assert public_files(tmp_path) == [
        "README.md", "config.json", "figures/a.png", "model-00001-of-00002.safetensors",
    ]  # fmt: skip


def test_kind16_uploaded_settings_hold_no_path_of_the_machine():
    same = {"b": "org/name", "unk_token": "/", "pattern": "a/b", "n": 1}
    settings = {"_name_or_path": "/home/me/models/clip", "a": ["C:\\Users\\me\\x.json", "~/y"], **same}
    assert without_paths(settings) == {"_name_or_path": "clip", "a": ["x.json", "y"], **same}


def test_kind17_a_card_written_again_replaces_only_itself(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(OWN)
    write_card(tmp_path, make_facts(licence=None))
    first = path.read_text()
    assert own_text(first) == "# My own words\n\nKeep *this*."
    path.write_text(first.replace(BEGIN, f"Above.\n\n{BEGIN}"))
    write_card(tmp_path, make_facts(licence=None, records=()))
    second = path.read_text()
    header, body = split_header(second)
    assert body.startswith("\nAbove.") and "**Nothing was measured.**" in second and body.count(END) == 1
    assert header["license"] == "cc-by-4.0" and "model-index" not in header
    assert merge(second, second) == second


def test_kind21_a_removed_card_leaves_the_owners_text_only(tmp_path):
    path = tmp_path / "README.md"
    write_card(tmp_path, make_facts())
    assert without_card(path.read_text()) == "", "nobody else wrote in it"
    assert without_card(OWN) == OWN, "a README without our card is not touched"
    path.write_text(OWN)
    write_card(tmp_path, make_facts())
    header, body = split_header(without_card(path.read_text()))
    assert body.strip() == "# My own words\n\nKeep *this*."
    assert not {"model-index", "metrics", "base_model", "datasets"} & set(header) and header["custom"] == 1
