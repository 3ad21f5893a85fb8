"""A state directory: a killed evaluation goes on and ends the same; another one is refused."""

from __future__ import annotations

import json
import random
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from state_child import ATTACKS, Corner, corner_images, killed_at, measure_corner, shared_by
from tiny_data import PATHS, make_images
from torch.utils.data import TensorDataset

from hf_hierrobust import evaluate
from hf_hierrobust.attacks import PGD
from hf_hierrobust.classifiers import Classifier, UnsteadyClassifierWarning
from hf_hierrobust.data import ClassSet
from hf_hierrobust.evaluation import EvaluationState, Shards, StateError, records_hash, runner
from hf_hierrobust.evaluation.verdicts import CLEAN, LineError, Stage

OPERATIONS, ATTACKED = 50, 16
"""Operations of a whole evaluation (six for the manifest, then clean verdicts, attacks, a flush after each),
and attacks on a batch among them."""


@pytest.fixture(scope="module")
def undisturbed():
    return measure_corner()


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "state"
    measure_corner(folder)
    return folder


@pytest.fixture()
def state(finished, tmp_path) -> Path:
    """A finished evaluation's directory, to be damaged."""
    return shutil.copytree(finished, tmp_path / "state")


def stages_of(folder: Path) -> list[Stage]:
    """What can be read of the verdicts."""
    found = []
    for line in (line for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()):
        with suppress(LineError):
            found.append(Stage.read(line)[1])
    return found


@pytest.fixture()
def attacked(monkeypatch) -> list[int]:
    """How many images each attack saw from now on."""
    seen, run = [], PGD.run

    def counted(self, victim, pixels, *args):
        seen.append(len(pixels))
        return run(self, victim, pixels, *args)

    monkeypatch.setattr(PGD, "run", counted)
    return seen


# ---- killed ----


@pytest.mark.parametrize("operation", random.Random(5).sample(range(1, OPERATIONS + 1), 10))
def test_killed_at_random_moments_it_ends_with_identical_records(operation, undisturbed, tmp_path, attacked):
    killed_at(tmp_path / "state", operation)
    known = sum(stage.attack != CLEAN for stage in stages_of(tmp_path / "state"))
    found = measure_corner(tmp_path / "state")
    assert records_hash(found) == records_hash(undisturbed)
    assert [r.cost for r in found] == [r.cost for r in undisturbed]
    assert [r.checks for r in found] == [r.checks for r in undisturbed]
    assert len(attacked) == ATTACKED - known


def test_killed_again_and_again_it_gets_on(undisturbed, tmp_path):
    for operation in (12, 14, 9, 5):
        killed_at(tmp_path / "state", operation)
    assert records_hash(measure_corner(tmp_path / "state")) == records_hash(undisturbed)


def test_a_noisy_classifier_draws_the_same_after_a_kill(tmp_path):
    with pytest.warns(UnsteadyClassifierWarning):
        whole = measure_corner(net=Corner(noise=0.4))
    killed_at(tmp_path / "state", 25, noise=0.4)
    with pytest.warns(UnsteadyClassifierWarning):
        resumed = measure_corner(tmp_path / "state", Corner(noise=0.4))
    assert records_hash(resumed) == records_hash(whole)


def test_a_finished_evaluation_attacks_nothing_again(state, undisturbed, attacked):
    found = measure_corner(state)
    assert records_hash(found) == records_hash(undisturbed) and attacked == []
    assert [r.wall_seconds for r in found] == [r.wall_seconds for r in measure_corner(state)]


# ---- torn ----


def cut(raw: bytes, rng: random.Random) -> bytes:
    return raw[: rng.randrange(len(raw))]


def flipped(raw: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(raw))
    return raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]


def zeroed(raw: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(raw))
    return raw[:start] + bytes(min(100, len(raw) - start)) + raw[start + 100 :]


def garbage(raw: bytes, rng: random.Random) -> bytes:
    return raw + rng.randbytes(300) + b'\n[]\n{"digest": 1}\nnull\n'


def without_a_line(raw: bytes, rng: random.Random) -> bytes:
    lines = raw.splitlines(keepends=True)
    del lines[rng.randrange(len(lines))]
    return b"".join(lines)


@pytest.mark.parametrize("damage", [cut, flipped, zeroed, garbage, without_a_line])
def test_torn_verdicts_are_found_again(damage, state, undisturbed, attacked, caplog):
    path = state / "verdicts-0.jsonl"
    for trial in range(3):
        path.write_bytes(damage(path.read_bytes(), random.Random(trial)))
        assert records_hash(measure_corner(state)) == records_hash(undisturbed)
    said = [r.getMessage() for r in caplog.records if "passed over" in r.getMessage()]
    assert len(said) <= 3 and all("\n" not in words for words in said)
    assert said or damage in (without_a_line, cut)
    assert attacked or damage is garbage
    attacked.clear()
    assert records_hash(measure_corner(state)) == records_hash(undisturbed) and attacked == []


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.unlink(), "holds verdicts but no manifest.json"),
        (lambda path: path.write_text(path.read_text()[:-40]), "manifest.json cannot be read"),
        (lambda path: path.write_text(path.read_text().replace('"seed": 0', '"seed": 1')), "digest differs"),
        (lambda path: path.write_bytes(b"\x00\xff"), "manifest.json cannot be read"),
        (lambda path: path.write_text("[]"), "no seal"),
    ],
    ids=["gone", "cut", "altered", "bytes", "other"],
)
def test_verdicts_of_nobody_knows_what_are_refused(damage, words, state):
    damage(state / "manifest.json")
    with pytest.raises(StateError, match=words) as error:
        measure_corner(state)
    assert "\n" not in str(error.value) and "remove this one to start anew" in str(error.value)


def test_verdicts_of_another_directory_count_for_nothing(state, undisturbed, tmp_path, attacked):
    measure_corner(tmp_path / "other", seed=1)
    foreign = (tmp_path / "other" / "verdicts-0.jsonl").read_bytes()
    attacked.clear()
    (state / "verdicts-0.jsonl").write_bytes(foreign)
    assert records_hash(measure_corner(state)) == records_hash(undisturbed) and len(attacked) == ATTACKED


def test_a_directory_is_one_evaluations_at_a_time(state, undisturbed):
    facts = json.loads((state / "manifest.json").read_text())
    used = EvaluationState(state, facts["common"], list(facts["sets"]), Shards())
    with used, pytest.raises(StateError, match="is in use by another evaluation"):
        measure_corner(state)
    assert records_hash(measure_corner(state)) == records_hash(undisturbed)


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "state").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file: give a directory"):
        measure_corner(tmp_path / "state")


# ---- changed ----


def changed_images(change) -> TensorDataset:
    pixels, labels = corner_images().tensors
    change(pixels, labels)
    return TensorDataset(pixels, labels)


def other_weights() -> Corner:
    net = Corner()
    with torch.no_grad():
        net.weight[:] = net.weight.flip(0)  # the same numbers in other places
    return net


TREE = {f"class {index}": [f"half {index // 2}"] for index in range(4)}
CHANGES = {
    "weights": ("weights", lambda: {"net": other_weights()}),
    "preprocessing": ("answers of level 0", lambda: {"net": Classifier(Corner(), mean=[0.1], std=[1.0])}),
    "a function": ("answers of level 0", lambda: {"net": lambda pixels: Corner()(pixels) + pixels.mean()}),
    "one pixel of the last image": (
        "images at native size",
        lambda: {"data": changed_images(lambda pixels, labels: pixels[-1, 0, 0, 0].add_(1))},
    ),
    "one label": (
        "images at native size",
        lambda: {"data": changed_images(lambda pixels, labels: labels[-1].sub_(1).remainder_(4))},
    ),
    "fewer images": ("images: 22 -> 12", lambda: {"num_samples": 12}),
    "other images": ("images: 22 -> 30", lambda: {"data": corner_images(30)}),
    "another set": ("holds verdicts on 'dataset', which", lambda: {"dataset_name": "photos"}),
    "class names": ("class names", lambda: {"class_set": ClassSet.from_names(["a", "b", "c", "d"])}),
    "tree": ("tree: None -> '", lambda: {"tree": TREE, "class_set": ClassSet.from_names(TREE)}),
    "attack": ("num_steps of ce at budget 1: 1 -> 2", lambda: {"attack": [PGD(num_steps=2), ATTACKS[1]]}),
    "order of attacks": ("attacks of budget 1", lambda: {"attack": ATTACKS[::-1]}),
    "budget": ("budget 2: 'linf:3/255, native' -> 'linf:4/255, native'", lambda: {"eps": ["1/255", "4/255"]}),
    "norm": ("norm of ce", lambda: {"norm": "l2"}),
    "precision": ("search precision: 'float32' -> 'bfloat16'", lambda: {"bf16_search": True}),
    "seed": ("seed: 0 -> 7", lambda: {"seed": 7}),
    "batch size": ("batch_size: 6 -> 5", lambda: {"batch_size": 5}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_whatever_changes_is_named_and_refused(name, state, attacked):
    words, options = CHANGES[name]
    before = {path: path.read_bytes() for path in state.iterdir()}
    with pytest.raises(StateError) as error:
        measure_corner(state, **options())
    said = str(error.value)
    assert words in said and "\n" not in said and "give another state_dir, or remove this one" in said
    assert attacked == [] and {path: path.read_bytes() for path in state.iterdir()} == before


@pytest.fixture(scope="module")
def clip_state(tiny_clip_dir, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clip") / "state"
    measure_clip(tiny_clip_dir, folder)
    return folder


def measure_clip(clip_dir, folder, **options):
    options = {"attack": "pgd-ce", "num_steps": 1, "progress": False, "batch_size": 5} | options
    return evaluate(clip_dir, make_images(12), state_dir=folder, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"template": "a {}"}, "templates"),
        ({"tree": PATHS}, "tree: None"),
        ({"space": "model"}, "space of"),
    ],
)
def test_changes_to_a_dual_encoders_prompts_are_refused(options, words, clip_state, tiny_clip_dir):
    with pytest.raises(StateError, match=words):
        measure_clip(tiny_clip_dir, clip_state, **options)


def test_what_records_call_the_model_may_change(state, undisturbed, attacked):
    (renamed, _) = measure_corner(state, model_name="mine")
    assert attacked == [] and renamed == replace(
        undisturbed[0], model="mine", created=renamed.created, wall_seconds=renamed.wall_seconds
    )


def test_nothing_to_lose_is_nothing_to_refuse(tmp_path, undisturbed):
    """Killed before the first verdict, other settings may follow."""
    killed_at(tmp_path / "state", 5)
    assert not stages_of(tmp_path / "state") and (tmp_path / "state" / "manifest.json").exists()
    assert records_hash(measure_corner(tmp_path / "state")) == records_hash(undisturbed)


# ---- several processes ----


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_measure_what_one_does(processes, undisturbed, tmp_path):
    """22 images in batches of 6: no image twice, none padded."""
    hashes = shared_by(processes, tmp_path, tmp_path / "state")
    assert hashes == [records_hash(undisturbed)] * processes
    for rank in range(processes):
        lines = (tmp_path / "state" / f"verdicts-{rank}.jsonl").read_text().splitlines()
        assert {json.loads(line)["batch"] for line in lines} == set(range(4)[rank::processes])


def test_processes_without_a_batch_wait_for_the_others(tmp_path):
    whole = records_hash(measure_corner(batch_size=22))
    assert shared_by(2, tmp_path, tmp_path / "state", batch_size=22) == [whole] * 2


def test_what_one_process_began_two_finish_and_one_repeats(undisturbed, tmp_path, attacked):
    killed_at(tmp_path / "state", 30)
    hashes = shared_by(2, tmp_path, tmp_path / "state")
    assert hashes == [records_hash(undisturbed)] * 2
    assert records_hash(measure_corner(tmp_path / "state")) == records_hash(undisturbed) and attacked == []


# ---- what the state costs ----


def test_images_are_decoded_and_judged_once_with_a_state_too(tmp_path, monkeypatch):
    decoded, judged = [], []

    class Counting(TensorDataset):
        def __getitem__(self, index):
            decoded.append(index)
            return super().__getitem__(index)

    judge = runner.judge_all
    monkeypatch.setattr(runner, "judge_all", lambda *args: judged.append(args[0]) or judge(*args))
    data = Counting(*corner_images().tensors)
    evaluate(Corner(), data, batch_size=6, progress=False, num_steps=1)
    without = len(decoded)
    decoded.clear()
    judged.clear()
    evaluate(Corner(), data, batch_size=6, progress=False, num_steps=1, state_dir=tmp_path / "state")
    assert len(decoded) == without and len(judged) == 4
