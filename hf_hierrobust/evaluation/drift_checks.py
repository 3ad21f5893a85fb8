"""Checks of what a record says of drift (`drift.token_drift`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FIELDS = frozenset(
    {"base", "layer", "tokens", "num_samples", "num_steps", "clean", "attacked", "base_attacked"}
)


def check_drift(drift: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Refuse an entry ``drift`` that contradicts itself or its record.

    Raises:
        ValueError: names the field.
    """
    if not isinstance(drift, Mapping) or set(drift) != FIELDS:
        has = sorted(drift) if isinstance(drift, Mapping) else drift
        raise ValueError(f"drift must hold {', '.join(sorted(FIELDS))}, got {has}.")
    if record["level"] != 0 or record["classifier"] != "cosine":
        raise ValueError(
            f"drift is of the image tower and stands with the leaves' cosine, not with "
            f"classifier={record['classifier']!r} at level={record['level']}."
        )
    if not isinstance(drift["base"], str) or not drift["base"]:
        raise ValueError(f"drift.base={drift['base']!r} must name the base.")
    if drift["layer"] != -2:
        raise ValueError(f"drift.layer={drift['layer']!r} must be -2, the layer that LLaVA-type models read.")
    for name, most in (("tokens", None), ("num_steps", None), ("num_samples", record["num_samples"])):
        value = drift[name]
        if type(value) is not int or value < 1 or (most is not None and value > most):
            limit = "" if most is None else f", at most the record's num_samples={most}"
            raise ValueError(f"drift.{name}={value!r} must be an integer >= 1{limit}.")
    for name in ("clean", "attacked", "base_attacked"):
        value = drift[name]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not -1 <= value <= 1 + 1e-5:
            raise ValueError(f"drift.{name}={value!r} must be a cosine in [-1, 1].")
    if drift["attacked"] > drift["clean"] + 1e-6:
        raise ValueError(
            f"drift.attacked={drift['attacked']} is above drift.clean={drift['clean']}: the attack keeps the "
            "lowest cosine, the clean image's among them."
        )
