"""Fixtures shared by all tests: a tiny stock CLIP made offline, small image sets, the optional real data."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest
from calibrated_clip import clip, found  # noqa: F401
from cli_fixtures import command, data_dir  # noqa: F401
from source_files import folder, load  # noqa: F401
from tiny_data import PATHS, make_images, make_tiny_clip, make_tiny_siglip


@pytest.fixture(scope="session", autouse=True)
def fp32_on_every_machine():
    """Tests compute the same everywhere: ``bf16: auto`` is fp32 here, as on a CPU without bf16."""
    from hf_hierrobust import precision

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "query_capability", lambda kind: precision.Capability(kind, kind, False))
        yield


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Real photos and models kept beside the repository; tests that need them are skipped without."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not (path / "data").is_dir():
        pytest.skip("no ../shared with real data beside the repository")
    return path


@pytest.fixture(scope="session")
def tiny_clip_dir(tmp_path_factory) -> str:
    return make_tiny_clip(tmp_path_factory.mktemp("tiny-clip"))


@pytest.fixture(scope="session")
def tiny_siglip_dir(tmp_path_factory) -> str:
    return make_tiny_siglip(tmp_path_factory.mktemp("tiny-siglip"))


@pytest.fixture(scope="session")
def tiny_tree():
    from hf_hierrobust.hierarchy import LabelTree

    return LabelTree.from_paths(PATHS, name="tiny")


@pytest.fixture(scope="session")
def tiny_images() -> datasets.Dataset:
    return make_images(32)
