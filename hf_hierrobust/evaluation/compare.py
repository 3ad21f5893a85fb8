"""Records set beside others of the same images: the undefended base, and paired differences."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace

from transformers import logging

from .flags import unpack_flags
from .metrics import PairedDifference, paired_difference
from .record_checks import defence_constants
from .records import RobustnessRecord

logger = logging.get_logger(__name__)


def with_base(
    records: Iterable[RobustnessRecord], base: Iterable[RobustnessRecord]
) -> list[RobustnessRecord]:
    """Records with the undefended base's accuracies on the same images under the same attack beside them.

    Where both carry their verdicts, ``base["difference"]`` holds what training changed, with its paired 95 %
    interval and p-value (`compare`). A hyperbolic classifier, which the base does not have, is set beside the
    base's cosine one. Of a base with several seeds the record's own one stands there.
    """
    table: dict[tuple, dict[int, RobustnessRecord]] = {}
    for one in base:
        other = table.setdefault(_key(one), {}).setdefault(one.seed, one)
        if other is not one and other.flags != one.flags:
            logger.warning(
                f"the base was measured twice on {one.dataset!r} ({one.level_name}, {one.classifier}, "
                f"{one.attack['name']}, seed {one.seed}) with other results: the first one counts"
            )
    merged = []
    for record in records:
        found = table.get(_key(record)) or table.get(
            _key(record, record.classifier.removesuffix("hyperbolic")), {}
        )
        other = next(iter(found.values())) if len(found) == 1 else found.get(record.seed)
        if other is not None:
            facts = {
                "model": other.model,
                "classifier": other.classifier,
                "clean_accuracy": other.clean_accuracy,
                "robust_accuracy": other.robust_accuracy,
            }
            if record.flags is not None and other.flags is not None:
                facts["difference"] = {
                    kind: compare(record, other, kind)._asdict() for kind in ("clean", "robust")
                }
            record = replace(record, base=facts)
        merged.append(record)
    return merged


def compare(one: RobustnessRecord, other: RobustnessRecord, kind: str = "robust") -> PairedDifference:
    """Accuracy of ``one`` minus that of ``other`` on the same images; see `paired_difference`.

    Args:
        kind: ``"clean"`` or ``"robust"``.

    Raises:
        ValueError: other images, or a record without the verdicts on every image.
    """
    for record in (one, other):
        if record.flags is None:
            raise ValueError(
                f"the record of {record.model!r} has no flags, the verdict on every image: evaluate it anew"
            )
    if one.sample_ids["sha256"] != other.sample_ids["sha256"]:
        raise ValueError(
            f"{one.model!r} and {other.model!r} were measured on different images of {one.dataset!r} and "
            f"{other.dataset!r}: a paired difference needs the same ones"
        )
    flags = (unpack_flags(record.flags[kind], record.num_samples) for record in (one, other))
    return paired_difference(*flags)


def _key(record: RobustnessRecord, classifier: str | None = None) -> tuple:
    """All that two measurements must share to be compared."""
    name = record.classifier if classifier is None else (classifier.removesuffix("-") or "cosine")
    images = (record.dataset, record.split, record.sample_ids["sha256"])
    classes = (record.class_set, record.tree_hash, record.templates_hash, record.level)
    how = json.dumps([record.attack, defence_constants(record.defence)], sort_keys=True)
    return (*images, *classes, name, record.crafted_level, how)
