"""The verdict on gradient masking over the records of one model, in one sentence."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Sequence

from ..evaluation.records import RobustnessRecord
from .protocols import entry_of
from .tables import attack_short, scored_by


def masking_sentence(records: Sequence[RobustnessRecord]) -> str:
    """What was looked for and what was found; "" without records.

    Each record brings its own verdict (`evaluation.doubts.masking`). Records of several budgets are also
    compared: a larger one that breaks fewer images speaks of masking, see Carlini et al. (1902.06705).
    """
    judged = [record for record in records if isinstance(record.checks.get("masking"), str)]
    if not judged:
        return "Signs of gradient masking were not looked for." if records else ""
    signs = [
        f"{r.dataset}, {r.level_name}, {scored_by(r)}, {attack_short(r.attack)}: "
        f"{r.checks['masking'].removeprefix('suspected: ')}"
        for r in judged
        if r.checks["masking"].startswith("suspected")
    ]
    larger = _larger_budgets(records)
    if larger is False:
        signs.append("a larger budget broke fewer images than a smaller one")
    if signs:
        return f"Gradient masking is suspected, so robust accuracies may be too high: {'; '.join(signs)}."
    zero = max(record.checks.get("zero_gradient_fraction") or 0.0 for record in judged)
    looked = [
        f"first gradients were exactly zero on at most {100 * zero:.1f} % of the images",
        "no later attack broke many images that an earlier one had left",
        *(["larger budgets broke more images"] if larger else []),
    ]
    return f"No sign of gradient masking was seen: {', '.join(looked[:-1])} and {looked[-1]}."


def _larger_budgets(records: Sequence[RobustnessRecord]) -> bool | None:
    """Whether accuracy never rises with the budget, all else equal; None with one budget only."""
    groups: dict[tuple, dict[float, float]] = defaultdict(dict)
    for entry in (entry_of(record) for record in records if record.crafted_level is None):
        # A step may be a fraction of the budget or not: either way more of it is allowed.
        protocol = {name: value for name, value in entry.protocol.items() if name != "step"}
        key = (entry.row, entry.nominal, json.dumps(protocol, sort_keys=True))
        found, eps = groups[key], entry.budget[1]
        found[eps] = min(found.get(eps, 1.0), entry.cell.robust)
    several = [[found[eps] for eps in sorted(found)] for found in groups.values() if len(found) > 1]
    if not several:
        return None
    return all(a >= b - 1e-9 for found in several for a, b in itertools.pairwise(found))
