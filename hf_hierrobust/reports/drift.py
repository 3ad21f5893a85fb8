"""Drift of the image tower in one sentence."""

from __future__ import annotations

from collections.abc import Sequence

from ..evaluation.records import RobustnessRecord


def drift_sentences(records: Sequence[RobustnessRecord]) -> list[str]:
    """For each budget, how far layer -2's patch tokens are from the base's; without Markdown.

    Where records of several models or sets tell it, each says whose it is. One measurement, which the records
    of several attacks carry, is told once.
    """
    told = [record for record in records if record.drift is not None]
    whose = {name: len({getattr(r, name) for r in told}) > 1 for name in ("model", "dataset", "split")}
    found = {}
    for record in sorted(told, key=lambda one: (one.attack["norm"], one.attack["eps"])):
        drift, attack = record.drift, record.attack
        said = (
            f"{drift['clean']:.3f} on clean images and {drift['attacked']:.3f} under attack at "
            f"{attack['norm']} {attack['eps_text']} (the base under its own attack: "
            f"{drift['base_attacked']:.3f}; {drift['num_samples']} images, {drift['num_steps']} steps)"
        )
        names = [getattr(record, name) for name, several in whose.items() if several]
        found[f"{said}, of {', '.join(names)}" if names else said] = None
    return list(found)
