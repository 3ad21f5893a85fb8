"""The images of a suite: chosen once for all models, and never mixed with others."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import logging

from ..data import threat_space_for
from ..data.suite import SuiteSet
from ..digests import digest_of
from ..evaluation import EvaluationSet
from ..files import read_json, write_atomically
from ..hierarchy import load_forest
from ..naming import public_name
from ..threat import Space

logger = logging.get_logger(__name__)
SAMPLES = "samples.json"
VERSION = 2


class SuiteError(ValueError):
    """An output folder is of other images than the ones asked for."""


@dataclass(frozen=True)
class Opened:
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
            "images_sha256": self.data.images_hash,
            "how": self.data.how,
            "rows": self.data.rows,
        }


def open_set(
    spec: SuiteSet,
    source: str | os.PathLike | None,
    folder: Path,
    *,
    samples: int | None,
    levels: bool,
    space: Space | str,
) -> Opened:
    """Open a set, with the rows that an earlier command chose.

    Raises:
        SuiteError: the folder's rows are of other images.
    """
    images, class_set, split = spec.open(source)
    saved = _saved(folder).get(spec.name)
    tree = None
    if levels and spec.tree is not None:
        tree = load_forest(spec.tree, class_set.class_names, wnids=class_set.wnids)[0]
    data = EvaluationSet(
        name=spec.name,
        dataset=images,
        class_set=class_set,
        split=split,
        tree=tree,
        num_samples=samples,
        chosen=_saved_rows(saved, len(images), spec),
    )
    if space == "auto":
        space, reason = threat_space_for(data.images, argument="space")
        if space == "model":
            logger.info(reason)
    found = Opened(spec, data, space, os.fspath(source or spec.hub_id))
    if saved is not None:
        _check_sample(saved, found, samples)
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


def _check_sample(saved: Mapping, found: Opened, samples: int | None) -> None:
    """Refuse data in another order, other images, and another number of them."""
    name, now = found.spec.name, found.sample()
    if saved["labels_sha256"] != now["labels_sha256"]:
        raise SuiteError(
            f"the labels of {name} stand in another order than when {SAMPLES} was written (source "
            f"{saved['source']}): its rows would be other images; use the same data, or another output folder"
        )
    wanted = saved["total"] if samples is None else min(samples, saved["total"])
    if len(saved["rows"]) != wanted:
        raise SuiteError(
            f"{SAMPLES} holds {len(saved['rows'])} images of {name}, asked for are {wanted}: leave the "
            "number as it was, or choose another output folder"
        )
    if saved["images_sha256"] != now["images_sha256"]:
        raise SuiteError(
            f"the images of {name} are others than when {SAMPLES} was written (source {saved['source']}): "
            "what was measured there could not stand beside them; use the same data, or another output folder"
        )


def _saved(folder: Path) -> dict:
    path = folder / SAMPLES
    if not path.is_file():
        return {}
    found = read_json(path)
    if not isinstance(found, dict) or not isinstance(found.get("sets"), dict):
        raise SuiteError(f"{path} holds no samples of a suite: choose another output folder")
    if found.get("version") != VERSION:
        raise SuiteError(
            f"{path} has version {found.get('version')!r}, this release writes {VERSION}: choose another "
            "output folder"
        )
    return found["sets"]


def save_samples(folder: Path, opened: Sequence[Opened]) -> None:
    """Before anything is measured, so that a second command on the folder takes the same rows."""
    sets = _saved(folder) | {one.spec.name: one.sample() for one in opened}
    document = {
        "schema": "hf_hierrobust.suite_samples",
        "version": VERSION,
        "sets": dict(sorted(sets.items())),
    }
    write_atomically(folder / SAMPLES, json.dumps(document, ensure_ascii=False) + "\n")
