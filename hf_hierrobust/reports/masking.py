"""Signs of gradient masking in records: an attack may find nothing because it could not look."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Sequence

from ..evaluation.records import RobustnessRecord

MAX_ZERO, MAX_DROP = 0.01, 0.05
"""Fraction of images with a zero gradient, and accuracy that a later attack may take from an earlier one."""


def masking_sentence(records: Sequence[RobustnessRecord]) -> str:
    """What was looked for and what was found, in one sentence; "" without records.

    Looked for are gradients that are exactly zero, later attacks that break many images the first ones left
    (the first were weak), and larger budgets that break fewer images. See Athalye et al. (1802.00420) and
    Carlini et al. (1902.06705).
    """
    if not records:
        return ""
    looked, found = [], []
    zeros = [r.checks["zero_gradient_fraction"] for r in records if _number(r, "zero_gradient_fraction")]
    if zeros:
        said = f"the gradient was exactly zero on at most {100 * max(zeros):.1f} % of the images"
        (found if max(zeros) > MAX_ZERO else looked).append(said)
    drops = [drop for record in records if (drop := _drop(record)) is not None]
    if drops:
        said = f"later attacks broke at most {100 * max(drops):.1f} points more than the first one"
        (found if max(drops) > MAX_DROP else looked).append(said)
    if (larger := _larger_budgets(records)) is not None:
        said = "larger budgets broke more images" if larger else "a larger budget broke fewer images"
        (looked if larger else found).append(said)
    if found:
        return f"Signs of gradient masking were found, so robust accuracies may be too high: {_and(found)}."
    if looked:
        return f"No sign of gradient masking was found: {_and(looked)}."
    return "Signs of gradient masking were not looked for."


def _number(record: RobustnessRecord, key: str) -> bool:
    return isinstance(record.checks.get(key), (int, float)) and not isinstance(record.checks[key], bool)


def _drop(record: RobustnessRecord) -> float | None:
    """Accuracy between the first attack's and the last one's, of those that ran one after the other."""
    # What attacked prompts break on top says nothing about the image gradients.
    after = [
        k for k in record.checks if k.startswith("robust_after_") and "text" not in k and _number(record, k)
    ]
    return record.checks[after[0]] - record.checks[after[-1]] if len(after) > 1 else None


def _larger_budgets(records: Sequence[RobustnessRecord]) -> bool | None:
    """Whether accuracy never rises with the budget, all else equal; None with one budget only."""
    groups = defaultdict(dict)
    for record in records:
        rest = {k: v for k, v in record.attack.items() if k not in ("eps", "eps_text", "step_size")}
        key = (record.dataset, record.split, record.level, record.classifier, record.seed)
        groups[(*key, json.dumps(rest, sort_keys=True))][record.attack["eps"]] = record.robust_accuracy
    several = [[found[eps] for eps in sorted(found)] for found in groups.values() if len(found) > 1]
    if not several:
        return None
    return all(a >= b - 1e-9 for found in several for a, b in itertools.pairwise(found))


def _and(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
