"""The local Hub of the tests answers the real client as the Hub does, in its bad moments too."""

from __future__ import annotations

import hashlib
import os

DATA = """
import sys
sys.path.insert(0, {tests!r})
from datasets import load_dataset
from huggingface_hub import HfApi, hf_hub_download
from tiny_data import make_images

images = make_images(6)
images.push_to_hub("tester/photos", private=True)
loaded = load_dataset("tester/photos", split="train")
streamed = list(load_dataset("tester/photos", split="train", streaming=True))
same = lambda a, b: a["label"] == b["label"] and a["image"].tobytes() == b["image"].tobytes()
report([loaded.features["label"].names, len(streamed)])
report([same(a, b) and same(a, c) for a, b, c in zip(images, loaded, streamed)])

def attempt(call, *args, **options):
    try:
        report(["done", str(call(*args, **options))])
    except Exception as error:
        report([type(error).__name__, str(error)])

attempt(hf_hub_download, "tester/nowhere", "config.json")
attempt(hf_hub_download, "tester/model", "nothing.json")
attempt(hf_hub_download, "tester/model", "config.json", revision="v9")
attempt(hf_hub_download, "tester/model", "config.json", token="hf_wrong")
attempt(hf_hub_download, "tester/secret", "config.json", token=False)
attempt(HfApi().create_repo, "somebody/model")
attempt(HfApi().list_repo_refs, "tester/model")
"""


def test_data_sets_and_error_answers(hub, run_client, tmp_path, pytestconfig):
    hub.add_repo("tester/model", {"config.json": b"{}"})
    hub.add_repo("tester/secret", {"config.json": b"{}"}, private=True)
    code = DATA.format(tests=str(pytestconfig.rootpath / "tests"))
    (names, count), same, *answers = run_client(hub, code, tmp_path).reports
    assert names == ["cat", "dog", "oak", "rose"] and count == 6 and same == [True] * 6
    assert hub.repos["datasets/tester/photos"].private
    assert [kind for kind, _ in answers] == [
        "RepositoryNotFoundError",  # 404
        "RemoteEntryNotFoundError",
        "RevisionNotFoundError",
        "HfHubHTTPError",  # 401
        "RepositoryNotFoundError",  # 401: a stranger is not told that it exists
        "HfHubHTTPError",  # 403
        "done",
    ]
    assert "401" in answers[3][1] and "403" in answers[5][1] and "main" in answers[6][1]


WEATHER = """
from huggingface_hub import HfApi, hf_hub_download
from pathlib import Path

api = HfApi()
path = hf_hub_download("tester/model", "model.safetensors")
report(Path(path).read_bytes().hex())
api.upload_file(path_or_fileobj={large!r}, path_in_repo="model.safetensors", repo_id="tester/other")
report(api.file_exists("tester/other", "model.safetensors"))
"""


def test_the_client_gets_through_bad_weather(hub, run_client, tmp_path):
    content = os.urandom(3000)
    hub.add_repo("tester/model", {"model.safetensors": content})
    hub.add_repo("tester/other", {"README.md": b""})
    (tmp_path / "large.bin").write_bytes(content[::-1])
    hub.fail("HEAD", "resolve/main/model.safetensors", status=500)
    hub.fail("GET", "resolve/main/model.safetensors", after=1000)
    hub.fail("PUT", "/lfs/", status=500)
    hub.fail("PUT", "/lfs/", after=10)
    code = WEATHER.format(large=str(tmp_path / "large.bin"))
    downloaded, there = run_client(hub, code, tmp_path).reports
    assert bytes.fromhex(downloaded) == content and there
    gets = [s for method, path, s in hub.log if method == "GET" and path.endswith("model.safetensors")]
    puts = [status for method, _, status in hub.log if method == "PUT"]
    assert gets == [0, 200], "cut after 1000 bytes, less than the client writes at once: asked for again"
    assert puts == [500, 0, 200]
    assert hub.lfs_store[hashlib.sha256(content[::-1]).hexdigest()] == content[::-1]
    assert not any(fault.times for fault in hub.faults)
