"""Drift of the image tower in one sentence."""

from __future__ import annotations

from collections.abc import Sequence

from ..evaluation.records import RobustnessRecord


def drift_sentences(records: Sequence[RobustnessRecord]) -> list[str]:
    """For each budget, how far layer -2's patch tokens are from the base's; without Markdown."""
    found = {}
    for record in records:
        if (drift := record.drift) is not None:
            attack = record.attack
            key = attack["norm"], attack["eps"]
            found[key] = found.get(key) or (
                f"{drift['clean']:.3f} on clean images and {drift['attacked']:.3f} under attack at "
                f"{attack['norm']} {attack['eps_text']} (the base under its own attack: "
                f"{drift['base_attacked']:.3f}; {drift['num_samples']} images, {drift['num_steps']} steps)"
            )
    return [found[key] for key in sorted(found)]
