"""Robustness records: one measured accuracy with everything needed to read, repeat or doubt it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from .depth_checks import check_depth
from .drift_checks import check_drift
from .json_record import JsonRecord
from .record_checks import (
    check_classes,
    check_diagnostics,
    check_flags,
    check_identity,
    check_intervals,
    check_transfer,
    checked_accuracies,
    checked_attack,
    checked_base,
    checked_defence,
    to_plain,
)

__all__ = [
    "RobustnessRecord",
    "describe_samples",
    "environment_versions",
    "records_hash",
]

VOLATILE = frozenset({"created", "wall_seconds"})
"""Fields that say when and how long something was measured; all others are the same when it is repeated."""


def environment_versions() -> dict[str, str]:
    """Versions of what decides a number: python, torch, transformers and this package."""
    import hf_hierrobust

    installed = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
    return {"python": platform.python_version(), **installed, "hf_hierrobust": hf_hierrobust.__version__}


def describe_samples(ids: Iterable[int | str], how: str) -> dict[str, Any]:
    """The `sample_ids` entry of a record: `how` in words, the count, and a SHA-256 over the ids in order.

    Two records measured the same images in the same order if and only if their hashes agree.

    Raises:
        ValueError: no ids, or an id occurs twice.
    """
    names = [str(i) for i in ids]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"ids holds {len(names)} entries, {len(set(names))} distinct; need >= 1 and no repeats."
        )
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    return {"how": how, "count": len(names), "sha256": digest}


@dataclass(frozen=True, kw_only=True)
class RobustnessRecord(JsonRecord):
    """Clean and robust accuracy of one classifier on one set of images under one attack.

    Accuracies are fractions of the same `num_samples` images; an image counts as robust only if it is right
    both when clean and under attack, so `robust_accuracy <= clean_accuracy`. Numpy and torch scalars become
    JSON types; a non-finite entry of `checks` becomes None.

    Attributes:
        model, dataset: Hub id or `public_name` of a local path, never a path of the machine.
        objective: training objective, or "none" for an untouched base.
        class_set, num_classes: name of the class list, and how many classes this level chooses between.
        level, level_name: 0 = leaves, l = l-th superclass level; `level_name` is "leaf", "superclass", ...
        classifier: whose logits were attacked: "cosine", "hyperbolic", "rollup", "path" (OC-22).
        attack: constants: name, norm, eps (pixel scale), space ("native" | "model"), and where they exist
            step_size, num_steps, restarts, random_start, loss, resolution; `eps_text` ("4/255") is added.
            With a `target` ("within superclass" | "outside superclass", at `target_level`) an image is broken
            only if the prediction is one of the target's classes.
        sample_ids: see `describe_samples`; its count equals `num_samples`.
        intervals: {"clean": [low, high], "robust": [low, high]}, 95 % Wilson, computed from the counts.
        crafted_level, judged_level: the adversarial images were made against the classifier of the first
            level and shown to that of the second, which is `level`; None where both are the same one.
        transfer_rate: of the images right at `judged_level` when clean, the fraction that is wrong there on
            the adversarial image; None if no image is right.
        defence: a test-time defence around the classifier: its constants, name first, `eot` (draws that the
            adaptive attack averages over), and the fractions `undefended_clean`, `undefended_robust` (without
            it), `blind_robust` (attacked as if it were not there) and `adaptive_robust` (attacked through
            it). `robust_accuracy` counts the images that both attacks leave.
        base: the undefended base on the same images: clean_accuracy, robust_accuracy and, optionally, model;
            its intervals are added.
        created: ISO date and time, UTC by default.
        wall_seconds: duration of the measurement, in seconds.
        cost: {"forwards", "backwards"} of the classifier per image, attacks and verdicts together.
        checks: zero_gradient_fraction, the largest share of the images on which an attack began without any
            gradient, ``robust_after_…`` for each attack, and the verdict ``masking``: "none seen" or
            "suspected: …"; with ``diagnostics`` (`evaluation.diagnostics`) further checks by name, each with
            its `verdict` ("passed" | "failed" | "not applicable"), `why` and numbers.
        flags: {"clean": …, "robust": …}, the verdict on every image in the order of the samples, packed by
            `flags.pack_flags`: what paired comparisons of two records need.
        classes: {"names", "images", "clean", "robust"}, of each of the level's classes the name, the number
            of images and how many of them are right, clean and under attack (`class_counts`).
        depth: of a tree's level in the ball of a calibrated head: norms and edges of its texts, margins of
            -kappa d and their bound, see `depth.TreeDepth.facts`. It stands with the classifier "hyperbolic"
            or, where that was not attacked, with "cosine".
        drift: cosines of layer -2's patch tokens to the base's, clean and attacked within the record's
            budget, see `drift.token_drift`; ``base`` names it.

    Raises:
        ValueError: a value contradicts another one or its own meaning; the message names the field.
    """

    model: str
    objective: str
    dataset: str
    split: str
    class_set: str
    num_classes: int
    level: int
    level_name: str
    classifier: str
    attack: dict[str, Any]
    seed: int
    num_samples: int
    sample_ids: dict[str, Any]
    clean_accuracy: float
    robust_accuracy: float
    model_hash: str | None = None
    tree: str | None = None
    tree_hash: str | None = None
    templates_hash: str | None = None
    crafted_level: int | None = None
    judged_level: int | None = None
    transfer_rate: float | None = None
    defence: dict[str, Any] | None = None
    intervals: dict[str, list[float]] = field(default_factory=dict)
    base: dict[str, Any] | None = None
    versions: dict[str, str] = field(default_factory=environment_versions)
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    wall_seconds: float | None = None
    cost: dict[str, float] | None = None
    checks: dict[str, Any] = field(default_factory=dict)
    flags: dict[str, str] | None = None
    classes: dict[str, list] | None = None
    depth: dict[str, Any] | None = None
    drift: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        for f in fields(self):
            object.__setattr__(self, f.name, to_plain(getattr(self, f.name), f.name))
        check_identity(vars(self))
        object.__setattr__(self, "attack", checked_attack(self.attack))
        intervals = checked_accuracies(self.clean_accuracy, self.robust_accuracy, self.num_samples, "")
        check_intervals(self.intervals, intervals)
        object.__setattr__(self, "intervals", intervals)
        if self.flags is not None:
            check_flags(self.flags, self.clean_accuracy, self.robust_accuracy, self.num_samples)
        if self.classes is not None:
            check_classes(self.classes, vars(self))
        if self.depth is not None:
            check_depth(self.depth, vars(self))
        if self.drift is not None:
            check_drift(self.drift, vars(self))
        check_transfer(vars(self))
        check_diagnostics(self.checks)
        if self.defence is not None:
            object.__setattr__(self, "defence", checked_defence(self.defence, vars(self)))
        if self.base is not None:
            object.__setattr__(self, "base", checked_base(self.base, self.num_samples))

    @property
    def direct(self) -> bool:
        """The classifier itself under its own attack: no transfer, target, defence or attacked text."""
        special = {"target", "text_attack", "text"} & set(self.attack)
        return self.crafted_level is None and self.defence is None and not special

    @property
    def balanced(self) -> dict[str, float] | None:
        """Clean and robust accuracy as means over the classes that have images; None without `classes`.

        Where one class has most images, as upper levels of a WordNet tree do, a network that answers it
        always is right on its share; this mean gives it one class.
        """
        if self.classes is None:
            return None
        seen = [(n, c, r) for n, c, r in zip(*(self.classes[k] for k in ("images", "clean", "robust"))) if n]
        return {
            "clean": sum(c / n for n, c, _ in seen) / len(seen),
            "robust": sum(r / n for n, _, r in seen) / len(seen),
        }


def records_hash(records: Iterable[RobustnessRecord]) -> str:
    """SHA-256 of what records measured, in their order: of everything but the fields of `VOLATILE`."""
    entries = [{k: v for k, v in r.to_dict().items() if k not in VOLATILE} for r in records]
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()
