"""Several models on the zero-shot suite, on the same images; killed, the same command goes on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import logging

from ..adapters.fingerprints import weights_hash
from ..attacks import Attack
from ..data import ClassSet, threat_space_for
from ..data.suite import SuiteSet, available_suite, load_suite_set
from ..digests import digest_of
from ..evaluation import AttackPlan, EvaluationSet, RobustnessRecord, Shards, evaluate_model
from ..evaluation.plan import describe_attacks
from ..evaluation.record_files import load_records, measurement, save_records
from ..files import read_json, write_atomically
from ..hierarchy import load_forest
from ..modeling import RobustDualEncoder, load_robust_model
from ..naming import file_stem, public_name
from ..options import check_given
from ..precision import resolve_bf16
from ..progress import say
from ..threat import Norm, Space
from ..training.intake import processor_for
from .evaluate import joined_shards
from .leaderboard import WrittenLeaderboard, write_leaderboard

logger = logging.get_logger(__name__)
SAMPLES, DONE = "samples.json", "done.json"


class SuiteError(ValueError):
    """An output folder is of other images than the ones asked for."""


@dataclass(frozen=True)
class SuiteRequest:
    """How every model is measured on every set.

    Attributes:
        attack, eps, norm, attack_options: see `AttackPlan.of`.
        space: ``"native"`` or ``"model"``; ``"auto"``: per set, native where all images have one size.
        samples: images of each set, stratified by class; None takes all.
        levels: measure the superclasses too, where a set has a tree.
        classifiers: see `evaluate_model`.
        seed: of random starts.
    """

    attack: str | Attack | Sequence[str | Attack] = "pgd"
    eps: float | str | Sequence[float | str] | None = None
    norm: Norm | None = None
    space: Space | str = "auto"
    samples: int | None = 1000
    levels: bool = False
    classifiers: Sequence[str] | None = None
    batch_size: int = 250
    bf16_search: bool | str = "auto"
    seed: int = 0
    attack_options: Mapping | None = None

    def __post_init__(self):
        check_given(batch_size=self.batch_size, seed=self.seed, samples=self.samples)
        if self.on_trees and not self.levels:
            raise ValueError(f"classifier {self.on_trees[0]!r} joins the levels of a tree: give levels too")

    @property
    def on_trees(self) -> list[str]:
        """The classifiers that were asked for and that only a tree has."""
        return [name for name in self.classifiers or () if name.startswith(("rollup", "path"))]

    def plan(self, space: Space) -> AttackPlan:
        return AttackPlan.of(
            self.attack, self.eps, norm=self.norm, space=space, **(self.attack_options or {})
        )


def evaluate_suite(
    models: Sequence[str | os.PathLike],
    output_dir: str | os.PathLike,
    sets: Sequence[str] | Mapping[str, str | os.PathLike | None] | None = None,
    request: SuiteRequest | None = None,
    *,
    device: torch.device | str | None = None,
    progress: bool = True,
    figures: bool = True,
) -> WrittenLeaderboard | None:
    """Measure models on data sets of the suite and write records and a leaderboard to ``output_dir``.

    ``samples.json`` there holds the rows of each set, chosen once for all models; ``records/`` a file of JSON
    lines a model. What is finished is not measured again, what was begun goes on from its last batch, further
    models, sets and attacks join what is there. Processes of ``accelerate launch`` share the batches; the
    first one writes.

    Args:
        models: folders or Hub ids of CLIP or SigLIP checkpoints.
        sets: names of the suite (or JSON files like its own), or names to local copies or other Hub ids; by
            default all of the suite.
        request: how to measure.
        device: by default an accelerator if there is one.
        figures: draw those of the leaderboard.

    Returns:
        The leaderboard of all that the folder holds; None on processes other than the first.

    Raises:
        SuiteError: the images of a set are others than those that ``samples.json`` was made of.
        FileNotFoundError, ValueError: a model or set that is not there or does not fit; said before anything
            is measured.
    """
    request, shards = request or SuiteRequest(), joined_shards()
    request.plan("native")  # a wrong attack or budget must not wait for the data
    folder = Path(output_dir).expanduser()
    sources = dict.fromkeys(available_suite() if sets is None else sets)
    sources = {name: sets[name] for name in sources} if isinstance(sets, Mapping) else sources
    specs = {name: load_suite_set(name) for name in sources}
    without = [name for name, spec in specs.items() if spec.tree is None]
    if without and request.on_trees and request.on_trees == list(request.classifiers):
        raise ValueError(f"{without[0]} has no tree for {', '.join(request.on_trees)}: add 'cosine'")
    opened = []
    for name, source in sources.items():
        say(f"data: {specs[name].title}")
        opened.append(_open(specs[name], source, request, folder))
    if shards.rank == 0:
        _save_samples(folder, opened)
    if device is None and torch.accelerator.is_available():
        device = torch.accelerator.current_accelerator()
    for name in models:
        _measure_model(os.fspath(name), opened, request, folder, device, progress, shards)
    if shards.rank > 0:
        return None
    return write_leaderboard(sorted((folder / "records").glob("*.jsonl")), folder, figures=figures)


@dataclass(frozen=True)
class _Opened:
    """A set with its images and the rows that every model is measured on."""

    spec: SuiteSet
    data: EvaluationSet
    space: Space
    source: str

    def sample(self) -> dict:
        """Its entry in ``samples.json``."""
        labels = self.data.images.labels
        return {
            "source": public_name(self.source),
            "split": self.data.split,
            "total": len(labels),
            "labels_sha256": digest_of(labels.tolist()),
            "how": self.data.how,
            "rows": self.data.rows,
        }


def _open(spec: SuiteSet, source: str | os.PathLike | None, request: SuiteRequest, folder: Path) -> _Opened:
    images, class_set, split = spec.open(source)
    saved = _saved(folder).get(spec.name)
    tree = None
    if request.levels and spec.tree is not None:
        tree = load_forest(spec.tree, class_set.class_names, wnids=class_set.wnids)[0]
    data = EvaluationSet(
        name=spec.name,
        dataset=images,
        class_set=class_set,
        split=split,
        tree=tree,
        num_samples=request.samples,
        chosen=_saved_rows(saved, len(images), spec),
    )
    space = request.space
    if space == "auto":
        space, reason = threat_space_for(data.images)
        if space == "model":
            logger.info(reason)
    found = _Opened(spec, data, space, os.fspath(source or spec.hub_id))
    if saved is not None:
        _check_sample(saved, found, request)
    return found


def _saved_rows(saved: Mapping | None, count: int, spec: SuiteSet) -> tuple[list[int], str] | None:
    """The rows of an earlier command on this folder; None where there was none."""
    if saved is None:
        return None
    if saved["total"] != count:
        raise SuiteError(
            f"{SAMPLES} has rows of {saved['total']} images of {spec.name} (source {saved['source']}), but "
            f"there are {count} now: use the same data, or another output folder"
        )
    return saved["rows"], saved["how"]


def _check_sample(saved: Mapping, found: _Opened, request: SuiteRequest) -> None:
    """Refuse data in another order, and another number of images."""
    name, now = found.spec.name, found.sample()
    if saved["labels_sha256"] != now["labels_sha256"]:
        raise SuiteError(
            f"the labels of {name} stand in another order than when {SAMPLES} was written (source "
            f"{saved['source']}): its rows would be other images; use the same data, or another output folder"
        )
    wanted = saved["total"] if request.samples is None else min(request.samples, saved["total"])
    if len(saved["rows"]) != wanted:
        raise SuiteError(
            f"{SAMPLES} holds {len(saved['rows'])} images of {name}, asked for are {wanted}: leave the "
            "number as it was, or choose another output folder"
        )


def _saved(folder: Path) -> dict:
    path = folder / SAMPLES
    if not path.is_file():
        return {}
    found = read_json(path)
    if not isinstance(found, dict) or not isinstance(found.get("sets"), dict):
        raise SuiteError(f"{path} holds no samples of a suite: choose another output folder")
    return found["sets"]


def _save_samples(folder: Path, opened: Sequence[_Opened]) -> None:
    """Before anything is measured, so that a second command on the folder takes the same rows."""
    sets = _saved(folder) | {one.spec.name: one.sample() for one in opened}
    document = {"schema": "hf_hierrobust.suite_samples", "version": 1, "sets": dict(sorted(sets.items()))}
    write_atomically(folder / SAMPLES, json.dumps(document, ensure_ascii=False) + "\n")


def _measure_model(
    path: str,
    opened: Sequence[_Opened],
    request: SuiteRequest,
    folder: Path,
    device,
    progress: bool,
    shards: Shards,
) -> None:
    """Records of one model on all sets, a set at a time."""
    model = load_robust_model(path)
    processor = processor_for(None, model)
    model = model.to(device) if device is not None else model
    model.eval()
    weights = weights_hash(model)
    file = folder / "records" / f"{file_stem(public_name(path))}-{weights[:6]}.jsonl"
    for one in opened:
        key = digest_of(_facts(one, request, weights, public_name(path)))
        if key in _done(folder) and file.is_file():
            say(f"{public_name(path)} on {one.spec.title}: is there already")
            continue
        say(f"{public_name(path)} on {one.spec.title}: {len(one.data.rows)} images")
        state = folder / "state" / key[:16]
        records = _measure(model, processor, path, one, request, progress, state, shards)
        if shards.rank > 0:
            continue
        kept = {measurement(r): r for r in (load_records(file) if file.is_file() else ())}
        save_records(file, (kept | {measurement(r): r for r in records}).values())
        write_atomically(folder / DONE, json.dumps(sorted({*_done(folder), key}), indent=1) + "\n")
        shutil.rmtree(state, ignore_errors=True)  # its verdicts are in the records now


def _measure(
    model: RobustDualEncoder,
    processor,
    path: str,
    one: _Opened,
    request: SuiteRequest,
    progress: bool,
    state: Path,
    shards: Shards,
) -> list[RobustnessRecord]:
    facts = getattr(model.config, "hier_robust", None) or {}
    bf16 = resolve_bf16(request.bf16_search, "bf16_search", model.device.type)
    return evaluate_model(
        model,
        processor,
        [one.data],
        request.plan(one.space),
        model_name=path,
        objective=facts.get("objective", "none"),
        classifiers=request.classifiers,
        batch_size=request.batch_size,
        bf16_search=bf16,
        seed=request.seed,
        progress=progress,
        state_dir=state,
        shards=shards,
    )


def _facts(one: _Opened, request: SuiteRequest, weights: str, name: str) -> list:
    """All that decides the records of one model on one set."""
    plan = request.plan(one.space)
    classes: ClassSet = one.data.class_set
    return [
        name,
        weights,
        one.sample(),
        [list(classes.class_names), list(classes.templates)],
        None if one.data.tree is None else one.data.tree.hash,
        [describe_attacks(attacks) for attacks in plan.budgets],
        list(request.classifiers or ()),
        [request.seed, request.batch_size, str(request.bf16_search)],
    ]


def _done(folder: Path) -> set[str]:
    path = folder / DONE
    return set(read_json(path)) if path.is_file() else set()
