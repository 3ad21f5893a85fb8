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
from ..data.suite import available_suite, load_suite_set
from ..digests import digest_of
from ..evaluation import AttackPlan, RobustnessRecord, Shards, evaluate_model
from ..evaluation.identity import model_facts, plan_facts, run_facts
from ..evaluation.record_files import load_records, measurement, save_records
from ..files import read_json, write_atomically
from ..modeling import RobustDualEncoder, load_robust_model
from ..naming import file_stem, public_name
from ..options import check_given
from ..precision import resolve_bf16
from ..progress import say
from ..threat import Norm, Space
from ..training.intake import processor_for
from .evaluate import joined_shards
from .leaderboard import WrittenLeaderboard, write_leaderboard
from .suite_samples import Opened, SuiteError as SuiteError, open_set, save_samples

logger = logging.get_logger(__name__)
DONE = "done.json"


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
    how = {"samples": request.samples, "levels": request.levels, "space": request.space}
    opened = []
    for name, source in sources.items():
        say(f"data: {specs[name].title}")
        opened.append(open_set(specs[name], source, folder, **how))
    if shards.rank == 0:
        save_samples(folder, opened)
    if device is None and torch.accelerator.is_available():
        device = torch.accelerator.current_accelerator()
    for name in models:
        _measure_model(os.fspath(name), opened, request, folder, device, progress, shards)
    if shards.rank > 0:
        return None
    return write_leaderboard(sorted((folder / "records").glob("*.jsonl")), folder, figures=figures)


def _measure_model(
    path: str,
    opened: Sequence[Opened],
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
    bf16 = resolve_bf16(request.bf16_search, "bf16_search", model.device.type)
    file = folder / "records" / f"{file_stem(public_name(path))}-{weights[:6]}.jsonl"
    for one in opened:
        key = digest_of(_facts(model, processor, path, one, request, weights, bf16))
        if shards.first_says(key in _done(folder) and file.is_file()):
            say(f"{public_name(path)} on {one.spec.title}: is there already")
            continue
        say(f"{public_name(path)} on {one.spec.title}: {len(one.data.rows)} images")
        state = folder / "state" / key[:16]
        records = _measure(model, processor, path, one, request, bf16, progress, state, shards)
        if shards.rank > 0:
            continue
        kept = {_place(r): r for r in (load_records(file) if file.is_file() else ())}
        save_records(file, (kept | {_place(r): r for r in records}).values())
        write_atomically(folder / DONE, json.dumps(sorted({*_done(folder), key}), indent=1) + "\n")
        shutil.rmtree(state, ignore_errors=True)  # its verdicts are in the records now


def _measure(
    model: RobustDualEncoder,
    processor,
    path: str,
    one: Opened,
    request: SuiteRequest,
    bf16: bool,
    progress: bool,
    state: Path,
    shards: Shards,
) -> list[RobustnessRecord]:
    return evaluate_model(
        model,
        processor,
        [one.data],
        request.plan(one.space),
        model_name=path,
        objective=_objective(model),
        classifiers=request.classifiers,
        batch_size=request.batch_size,
        bf16_search=bf16,
        seed=request.seed,
        progress=progress,
        state_dir=state,
        shards=shards,
    )


def _facts(
    model: RobustDualEncoder,
    processor,
    path: str,
    one: Opened,
    request: SuiteRequest,
    weights: str,
    bf16: bool,
) -> list:
    """All that decides the records of one model on one set: what a state directory compares, and names."""
    data, classes = one.data, one.data.class_set
    return [
        [public_name(path), _objective(model), weights],
        [data.name, one.sample()],
        [classes.name, classes.class_names, classes.templates],
        None if data.tree is None else [data.tree.name, data.tree.hash],
        list(request.classifiers or ()),
        model_facts(model, processor, classes, data.tree),
        run_facts(request.seed, request.batch_size, model.device, bf16),
        plan_facts(request.plan(one.space)),
    ]


def _objective(model: RobustDualEncoder) -> str:
    return (getattr(model.config, "hier_robust", None) or {}).get("objective", "none")


def _place(record: RobustnessRecord) -> str:
    """Of a record in its file: it takes that of one of other pixels, as another processor made them."""
    entries = json.loads(measurement(record))
    return json.dumps(
        {name: value for name, value in entries.items() if name not in ("sample_ids", "objective")}
    )


def _done(folder: Path) -> set[str]:
    path = folder / DONE
    return set(read_json(path)) if path.is_file() else set()
