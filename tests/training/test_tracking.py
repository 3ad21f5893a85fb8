"""Trackers get terms, robust accuracies and the perturbation as a picture, through their own callbacks."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_data import make_images
from tiny_runs import make_trainer

from hf_hierrobust.data import PixelDataset
from hf_hierrobust.training import RobustTrainingArguments, tracking
from hf_hierrobust.training.tracking import TAG, perturbation_rows

# Stand-ins for the packages: what transformers' own callbacks ask of them, and a list of what they were sent.
STUBS = {
    "wandb": """
import sys
from types import ModuleType, SimpleNamespace
for name in ("wandb.sdk", "wandb.sdk.lib", "wandb.sdk.lib.config_util"):
    sys.modules[name] = ModuleType(name)
sys.modules["wandb.sdk.lib.config_util"].ConfigError = type("ConfigError", (Exception,), {})
class Config(dict):
    def update(self, values, allow_val_change=False): super().update(values)
sent, run, config = [], None, Config()
class Image:
    def __init__(self, data, caption=None): self.data, self.caption = data, caption
def init(**kwargs):
    global run
    run = SimpleNamespace(name="run", id="1", url="", summary={}, _label=lambda **kwargs: None)
def log(values, **kwargs): sent.append(values)
""",
    "trackio": """
from types import SimpleNamespace
sent, config, __version__ = [], {}, "0.21.1"
class Config(dict):
    def update(self, values, allow_val_change=False): super().update(values)
config = Config()
class _Var:
    def get(self): return None
context_vars = SimpleNamespace(current_space_id=_Var(), current_project=_Var())
class Image:
    def __init__(self, data, caption=None): self.data, self.caption = data, caption
def init(**kwargs): pass
def log(values): sent.append(values)
def finish(): pass
""",
    "tensorboardX": """
sent = []
class SummaryWriter:
    def __init__(self, log_dir=None): pass
    def add_text(self, tag, text, step=None): pass
    def add_scalar(self, tag, value, step): sent.append({tag: value, "train/global_step": step})
    def add_image(self, tag, data, step, dataformats):
        assert dataformats == "HWC"
        sent.append({tag: data, "train/global_step": step})
    def flush(self): pass
    def close(self): pass
""",
}


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """Puts a stand-in on the path and in front of what is installed."""

    def place(package):
        for name, code in STUBS.items():
            for loaded in [one for one in sys.modules if one.split(".")[0] == name]:
                monkeypatch.delitem(sys.modules, loaded)
            if name == package:
                folder = tmp_path / "site" / name
                folder.mkdir(parents=True)
                (folder / "__init__.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path / "site")
        if package == "tensorboardX":
            monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # the import fails
        return __import__(package)

    yield place
    for name in [one for one in sys.modules if one.split(".")[0] in STUBS]:
        del sys.modules[name]


def run(clip_dir, output_dir, **args):
    trainer = make_trainer(
        clip_dir,
        output_dir,
        evaluation=PixelDataset(make_images(8, seed=5)),
        eps="16/255",
        max_steps=3,
        eval_strategy="steps",
        eval_steps=2,
        robust_eval_steps=1,
        **args,
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize(
    ("reporter", "package"), [("wandb", "wandb"), ("trackio", "trackio"), ("tensorboard", "tensorboardX")]
)
def test_terms_accuracies_and_pictures_arrive(reporter, package, stub, tiny_clip_dir, tmp_path, monkeypatch):
    stub = stub(package)
    trainer = run(tiny_clip_dir, tmp_path / "out", report_to=reporter)
    assert stub.__file__.startswith(str(tmp_path)), "the stand-in, not an installed package"
    keys = {key for values in stub.sent for key in values}
    assert {"train/loss", "train/ce", "eval/leaf_clean_accuracy", "eval/leaf_robust_accuracy", TAG} <= keys
    pictures = {values["train/global_step"]: values[TAG] for values in stub.sent if TAG in values}
    assert list(pictures) == [1, 2, 3], "first step, evaluation, last step"
    shown = pictures[3] if reporter == "tensorboard" else pictures[3].data
    clean, attacked = trainer.step.examples
    assert shown.dtype == np.uint8 and shown.shape == (4 * 132, 3 * 132, 3)
    # The third column of the second row is the second attacked image, each pixel four times as wide.
    found = shown[132 + 2 : 132 + 130 : 4, 2 * 132 + 2 : 2 * 132 + 130 : 4]
    wanted = (attacked[1] * 255).round().permute(1, 2, 0).numpy()
    assert np.array_equal(found, wanted) and not torch.equal(clean, attacked)


def test_what_tensorboard_wrote_can_be_read(tiny_clip_dir, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    run(tiny_clip_dir, tmp_path / "out", report_to="tensorboard")
    read = EventAccumulator(str(tmp_path / "events")).Reload()
    assert "eval/leaf_robust_accuracy" in read.Tags()["scalars"]
    assert [one.step for one in read.Images(TAG)] == [1, 2, 3]
    assert (read.Images(TAG)[0].width, read.Images(TAG)[0].height) == (3 * 132, 4 * 132)


def test_the_perturbation_is_drawn_around_grey_and_large_images_are_thinned():
    clean = torch.full((1, 3, 512, 256), 0.5)
    attacked = clean.clone()
    attacked[:, 0] += 4 / 255
    picture, caption = perturbation_rows(clean, attacked)
    assert picture.shape == (128 + 4, 3 * (64 + 4), 3)
    factor = 15  # the largest whole number whose 4/255 stay within a quarter
    assert f"× {factor} around grey (at most 4/255)" in caption
    assert picture[10, 68 + 10].tolist() == [round(255 * (0.5 + factor * 4 / 255)), 128, 128]
    assert "× 1 " in perturbation_rows(clean, clean)[1], "nothing changed"


def test_without_a_tracker_nothing_is_kept_or_imported(tiny_clip_dir, tmp_path):
    trainer = make_trainer(tiny_clip_dir, tmp_path / "out", report_to="none", max_steps=1)
    trainer.train()
    assert trainer.step.examples is None


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("wandb", ImportError, r"report_to='wandb'.*pip install 'hf_hierrobust\[wandb\]'"),
        ("trackio", ImportError, r"report_to='trackio'.*hf_hierrobust\[trackio\]"),
        ("tensorbord", ValueError, "report_to='tensorbord' is unknown: choose among .*tensorboard"),
    ],
)
def test_a_tracker_that_is_not_there_is_found_at_once(name, error, says, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda package: None)
    with pytest.raises(error, match=says):
        RobustTrainingArguments(str(tmp_path), report_to=name, bf16=False)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({}, None),
        ({"push_to_hub": True}, "deploys a static Space .*public.*hub_private_repo=true"),
        ({"trackio_space_id": "me/live"}, "logs into the Space 'me/live' and deploys a static Space"),
        ({"push_to_hub": True, "hub_private_repo": True}, r"\(private\)"),
        ({"push_to_hub": True, "trackio_static_space_id": False}, None),
    ],
)
def test_trackio_says_before_it_publishes(args, says, monkeypatch):
    import re

    said = []
    monkeypatch.setattr(tracking.logger, "warning", said.append)
    values = {"report_to": ["trackio"], "push_to_hub": False, "hub_private_repo": None}
    values |= {"trackio_space_id": None, "trackio_static_space_id": None}
    trainer = SimpleNamespace(args=SimpleNamespace(**values | args), step=SimpleNamespace(attack=None))
    assert tracking.tracking_callbacks(trainer) == []
    assert len(said) == (says is not None) and all(re.search(says, line) for line in said)
